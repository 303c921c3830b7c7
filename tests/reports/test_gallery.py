"""The gallery holds what the stored runs render to: this fails where either changed without the other."""

from __future__ import annotations

import re

import pytest

from alignarena.reports import gallery

_ANEW = "run python -m alignarena.reports.gallery and commit what it writes"


@pytest.mark.parametrize("name", gallery.SHOWN)
def test_the_gallery_is_in_step_with_the_stored_runs(name: str) -> None:
    stored = (gallery.GALLERY / f"{name}.html").read_text(encoding="utf-8")
    assert len(stored.encode()) < 3e6
    assert _content(stored) == _content(gallery.rendered(name)), _ANEW


def test_the_readme_links_to_the_gallery() -> None:
    readme = (gallery.ROOT / "README.md").read_text(encoding="utf-8")
    assert all(f"reports/gallery/{name}.html" in readme for name in gallery.SHOWN)


def _content(html: str) -> str:
    """The page without its drawings: their last digits differ between processors and versions of matplotlib."""
    return re.sub(r"<svg .*?</svg>", "<svg/>", html, flags=re.DOTALL)
