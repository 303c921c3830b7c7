"""What people said of a run's completions: a journal each, in RUN/people/NAME.jsonl, a line a verdict as it comes."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from alignarena.core.errors import BadInput
from alignarena.core.files import append_jsonl, read_jsonl

Side = Literal["a", "b"]
Winner = Literal["a", "b", "tie"]
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,39}")


@dataclass(frozen=True)
class Verdict:
    """What one person said of one pair; a is the method's completion, b SFT's."""

    pair: str  # its digest: two methods that wrote the same share the verdict
    judge: str
    winner: Winner | None  # None: taken back
    first: Side | None  # which of them stood first; None: the texts are equal and nobody was asked
    method: str
    seed: int
    prompt_id: str
    sample: int
    prompt: str
    a: str
    b: str


class Person:
    """One person's verdicts on a run; what is added is on disk before it counts.

    Args:
        run: The run folder.
        name: Letters, digits, ``-`` and ``_``.

    Raises:
        BadInput: The name cannot be that of a file, or the journal is damaged.
    """

    def __init__(self, run: Path, name: str) -> None:
        if not _NAME.fullmatch(name):
            raise BadInput(f"judge {name!r}: write a name of at most 40 letters, digits, - and _")
        self.name = name
        self.path = run / "people" / f"{name}.jsonl"
        self.standing: dict[str, Verdict] = {}  # by pair, those that were not taken back, the latest last
        for number, row in enumerate(read_jsonl(self.path), start=1):
            try:
                self._keep(Verdict(**row))
            except TypeError as error:
                raise BadInput(f"{self.path}, line {number}: no verdict ({error}); delete that line") from None

    @property
    def asked(self) -> list[Verdict]:
        """The standing verdicts that the person gave, without pairs of equal texts."""
        return [one for one in self.standing.values() if one.first is not None]

    def add(self, verdicts: Sequence[Verdict]) -> None:
        """Append verdicts; the last one on a pair stands.

        Raises:
            RunFailed: They cannot be written; none counts.
        """
        append_jsonl(self.path, [asdict(one) for one in verdicts])
        for one in verdicts:
            self._keep(one)

    def _keep(self, verdict: Verdict) -> None:
        self.standing.pop(verdict.pair, None)
        if verdict.winner is not None:
            self.standing[verdict.pair] = verdict


def people(run: Path) -> list[Person]:
    """Return everyone who judged a run, by name."""
    return [Person(run, path.stem) for path in sorted((run / "people").glob("*.jsonl"))]
