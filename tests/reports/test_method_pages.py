"""The pages of methods say what the stored runs say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from alignarena.core import registry
from alignarena.core.errors import BadInput
from alignarena.reports import method_pages

PAGES = sorted(method_pages.PAGES.glob("*.md"))


def test_pages_are_in_step_with_the_stored_runs(tmp_path: Path) -> None:
    copies = shutil.copytree(method_pages.PAGES, tmp_path / "methods")
    assert method_pages.rewrite(copies) == [], "run: python -m alignarena.reports.method_pages"
    (copies / "dpo.md").write_text(f"above\n{method_pages.BEGIN}\nstale\n{method_pages.END}\nbelow\n")
    assert method_pages.rewrite(copies) == ["dpo"]
    text = (copies / "dpo.md").read_text()
    assert text.startswith("above\n") and text.endswith("\nbelow\n") and "stale" not in text
    assert "| `dpo` |" in text


def test_a_page_is_about_the_methods_of_its_file() -> None:
    assert method_pages.names_on("arms") == ["rs_then_ppo", "ppo_then_rs"]
    registry.load_all()
    shown = {name for page in PAGES for name in method_pages.names_on(page.stem)}
    assert shown == set(registry.METHODS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_page_has_a_block(page: Path) -> None:
    assert page.read_text().count(method_pages.BEGIN) == 1


def test_half_a_block_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "dpo.md").write_text(method_pages.BEGIN)
    with pytest.raises(BadInput, match=r"dpo\.md lacks the line"):
        method_pages.rewrite(tmp_path)
