"""Anthropic's HH-RLHF (Bai et al., 2022; arXiv:2204.05862; MIT licence): real dialogues, two axes of human preference.

A row holds two whole dialogues, ``"\\n\\nHuman: ...\\n\\nAssistant: ..."``. The prompt is everything up to the last
assistant turn, the completion is that turn.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from alignarena.benchmarks.pairs import Message, Pair, Source, split_pairs
from alignarena.benchmarks.row_files import read_rows
from alignarena.benchmarks.splits import DataConfig, Dropped, Row, Splits, TooLong
from alignarena.core.errors import BadInput, RunFailed

REPOSITORY = "Anthropic/hh-rlhf"
AXES = {"helpful": "helpful-base", "harmless": "harmless-base"}
COLUMNS = ("chosen", "rejected")
_ASSISTANT = "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def load(config: DataConfig, too_long: TooLong) -> Splits:
    """Read the axes from a folder (``data.path``, else ``$ALIGNARENA_DATA/hh-rlhf``), else from the Hub.

    Raises:
        BadInput: The folder lacks a file, or a file a column.
        RunFailed: No folder is set and the Hub cannot be reached.
    """
    return split_pairs(config, _sources(config), too_long)


def _sources(config: DataConfig) -> Iterator[Source]:
    folder = find_folder(config.path)
    for axis in config.axes or AXES:
        for part in config.source_splits:
            name, rows = _from_hub(AXES[axis], part) if folder is None else _from_folder(folder, AXES[axis], part)
            kind = "red_team" if axis == "harmless" else "ordinary"
            yield Source(name, rows, parse_pair, f"hh-{axis}", axis, kind)


def files(config: DataConfig) -> list[Path]:
    """Return the files of the user's that are read; none where the Hub is asked."""
    folder = Path(config.path).expanduser() if config.path else find_folder(None)
    names = [name for axis in config.axes or AXES for part in config.source_splits
             for name in _candidates(AXES[axis], part)]  # fmt: skip
    return [folder / name for name in names] if folder else []


def find_folder(path: str | None) -> Path | None:
    """Return the folder that holds the data, or ``None`` where the Hub is to be asked.

    Raises:
        BadInput: ``data.path`` is no folder.
    """
    if path is not None:
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise BadInput(f"data.path: {path} is not a folder; give one that holds helpful-base.test.jsonl.gz")
        return folder
    data = os.environ.get("ALIGNARENA_DATA")
    default = Path(data).expanduser() / "hh-rlhf" if data else None
    return default if default is not None and default.is_dir() else None


def _from_folder(folder: Path, name: str, part: str) -> tuple[str, list[Row]]:
    names = _candidates(name, part)
    for candidate in names:
        if (folder / candidate).is_file():
            return str(folder / candidate), read_rows(folder / candidate, COLUMNS)
    raise BadInput(f"{folder} holds none of {', '.join(names)}; get one from hf.co/datasets/{REPOSITORY}")


def _candidates(name: str, part: str) -> list[str]:
    return [f"{name}{join}{part}.jsonl{zipped}" for join in (".", "/") for zipped in (".gz", "")]


def _from_hub(name: str, part: str) -> tuple[str, list[Row]]:
    from datasets import load_dataset

    try:
        rows = load_dataset(REPOSITORY, data_dir=name, split=part)
    except OSError as error:  # no network, offline mode, no such repository, a full disk
        raise RunFailed(
            f"cannot get {REPOSITORY} ({name}, {part}) from the Hub: {error}; without network, set data.path to a "
            f"folder that holds {_candidates(name, part)[0]}, or ALIGNARENA_DATA to a folder with hh-rlhf/ in it"
        ) from error
    return f"{REPOSITORY} {name} {part}", rows.to_list()


def parse_pair(row: Row) -> Pair:
    """Turn two dialogues into a prompt and two completions.

    Raises:
        Dropped: The dialogues are equal or malformed, or differ before the last assistant turn.
    """
    chosen, rejected = row.get("chosen"), row.get("rejected")
    if not isinstance(chosen, str) or not isinstance(rejected, str):
        raise Dropped("malformed dialogue")
    if chosen == rejected:
        raise Dropped("identical pair")
    prompt, better = _last_turn(chosen)
    other_prompt, worse = _last_turn(rejected)
    if prompt != other_prompt:
        raise Dropped("sides differ before the last turn")
    return Pair(_messages(prompt), better, worse)


def _last_turn(dialogue: str) -> tuple[str, str]:
    prompt, marker, completion = dialogue.rpartition(_ASSISTANT)
    if not marker or _TURN.search(completion):
        raise Dropped("malformed dialogue")
    return prompt, completion.strip()


def _messages(prompt: str) -> list[Message]:
    """Split the text before the last assistant turn: user and assistant alternate, a user is first and last."""
    before, *turns = _TURN.split(prompt)
    names, texts = turns[::2], [text.strip() for text in turns[1::2]]
    alternate = ["Human" if turn % 2 == 0 else "Assistant" for turn in range(len(names))]
    if before.strip() or len(names) % 2 == 0 or names != alternate or not all(texts):
        raise Dropped("malformed dialogue")
    return [{"role": _ROLES[name], "content": text} for name, text in zip(names, texts, strict=True)]
