"""``python -m alignarena.reports.gallery``: the reports in reports/gallery, rendered anew from results/reference."""

from __future__ import annotations

import tempfile
from pathlib import Path

from alignarena.core.files import atomic_write
from alignarena.reports.page import write_report

ROOT = Path(__file__).resolve().parents[1]
GALLERY, RUNS = ROOT / "reports" / "gallery", ROOT / "results" / "reference"
SHOWN = ("quickstart", "exact")


def rendered(name: str) -> str:
    """Return the page of one stored run; the same bytes every time."""
    with tempfile.TemporaryDirectory() as folder:
        return write_report([RUNS / name], folder).read_text(encoding="utf-8")


def main() -> int:
    """Render every page of the gallery."""
    for name in SHOWN:
        atomic_write(GALLERY / f"{name}.html", rendered(name))
        print(GALLERY / f"{name}.html")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
