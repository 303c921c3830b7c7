"""Trim a run folder to what a report and a reader need: ``python -m alignarena.results.trim RUN_DIR TO``.

Completions, training curves, ledgers and provenance stay; scores stay as results.parquet; policies and the rendered
report go. The result reads as any run folder does, and is small enough to keep in a repository.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from alignarena.results.store import RunFolder

_OF_RUN = ("suite.resolved.yaml", "provenance.json", "status.json", "results.parquet")
_OF_CELL = ("config.yaml", "metrics.jsonl", "completions.jsonl", "budget.json", "DONE", "FAILED")


def trim(run_dir: str | Path, to: str | Path) -> Path:
    """Copy a run folder without what can be rendered again or weighs much.

    Raises:
        BadInput: Not a run folder.
    """
    folder, target = RunFolder.open(run_dir), Path(to)
    shutil.rmtree(target, ignore_errors=True)
    extra = [path.relative_to(folder.path) for path in sorted((folder.path / "extra").glob("*.json"))]
    cells = [folder.cell_path(*cell).relative_to(folder.path) / name for cell in folder.cells() for name in _OF_CELL]
    for name in (*map(Path, _OF_RUN), *extra, *cells):
        if (folder.path / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.path / name, target / name)
    return target


if __name__ == "__main__":
    print(trim(sys.argv[1], sys.argv[2]))
