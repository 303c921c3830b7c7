"""The run folders at a path: one of a run, or those of a study's variants."""

from __future__ import annotations

from pathlib import Path

from alignarena.core.errors import BadInput
from alignarena.core.files import read_json
from alignarena.results.store import RunFolder

BASELINE = "sft"
STUDY = "study.json"  # in the folder of a study: its name, and the folders of its variants in order


def run_folders(path: str | Path) -> list[RunFolder]:
    """Return the run folder at a path; of a study's folder those of its variants that have begun, in order.

    Raises:
        BadInput: It is no folder that a run wrote, or a study of which nothing has begun.
    """
    file = Path(path) / STUDY
    if not file.is_file():
        return [RunFolder.open(path)]
    study = read_json(file)
    if not isinstance(study, dict) or not isinstance(study.get("variants"), list):
        raise BadInput(f"{file}: expected an object with a list of variants; run the study again")
    folders = [RunFolder(Path(path) / str(name)) for name in study["variants"]]
    begun = [folder for folder in folders if folder.suite]
    if not begun:
        raise BadInput(f"{path}: no variant of this study has begun; run the study again")
    return begun
