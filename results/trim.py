"""Trim a run to what a report and a reader need: ``python -m alignarena.results.trim RUN_DIR TO [--figures]``.

Completions, training curves, ledgers and provenance stay; scores stay as results.parquet; policies and the rendered
report go. With ``--figures`` completions and curves go too: what is left are the scores and what they cost. A study is
trimmed variant by variant. The result reads as any run does, and is small enough to keep in a repository.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from alignarena.results.frame import STUDY, run_folders
from alignarena.results.store import RunFolder

_OF_RUN = ("suite.resolved.yaml", "provenance.json", "status.json", "results.parquet")
_OF_CELL = ("config.yaml", "metrics.jsonl", "completions.jsonl", "budget.json", "DONE", "FAILED")
_NOT_FIGURES = ("metrics.jsonl", "completions.jsonl")


def trim(run_dir: str | Path, to: str | Path, figures: bool = False) -> Path:
    """Copy a run, or every run of a study, without what can be rendered again or weighs much.

    Args:
        run_dir: A run folder or a study's.
        to: Where to; what is there goes.
        figures: Whether completions and curves go as well.

    Raises:
        BadInput: Not a run folder.
    """
    source, target = Path(run_dir), Path(to)
    if not (source / STUDY).is_file():
        return _trimmed(RunFolder.open(source), target, figures)
    shutil.rmtree(target, ignore_errors=True)
    for variant in run_folders(source):
        _trimmed(variant, target / variant.path.name, figures)
    shutil.copyfile(source / STUDY, target / STUDY)
    return target


def _trimmed(folder: RunFolder, target: Path, figures: bool) -> Path:
    shutil.rmtree(target, ignore_errors=True)
    of_cell = [name for name in _OF_CELL if not figures or name not in _NOT_FIGURES]
    extra = [path.relative_to(folder.path) for path in sorted((folder.path / "extra").glob("*.json"))]
    cells = [folder.cell_path(*cell).relative_to(folder.path) / name for cell in folder.cells() for name in of_cell]
    for name in (*map(Path, _OF_RUN), *extra, *cells):
        if (folder.path / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder.path / name, target / name)
    return target


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m alignarena.results.trim", description=__doc__)
    parser.add_argument("run_dir", help="a run folder, or a study's")
    parser.add_argument("to", help="where to; what is there goes")
    parser.add_argument("--figures", action="store_true", help="leave out completions and training curves")
    args = parser.parse_args()
    print(trim(args.run_dir, args.to, args.figures))
