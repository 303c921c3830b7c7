"""Which pairs of a run people judge, and in which order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, zip_longest

from alignarena.benchmarks.against_sft import compared, no_completions, paired
from alignarena.core.digest import digest
from alignarena.core.errors import BadInput, nearest
from alignarena.core.seeds import generator
from alignarena.evaluators.judges.pairs import Pair
from alignarena.results.folders import BASELINE
from alignarena.results.store import RunFolder


@dataclass(frozen=True)
class Drawn:
    """A pair, and where it is from."""

    pair: Pair  # a is the method's, b SFT's
    method: str
    seed: int
    prompt_id: str
    sample: int

    @cached_property
    def key(self) -> str:
        """Names the pair, whichever of its texts is a."""
        return digest(self.pair.prompt, *sorted((self.pair.a, self.pair.b)))


def draw(folder: RunFolder, methods: Sequence[str] | None = None) -> list[Drawn]:
    """Return the pairs of a run in the order in which everyone judges them, each once.

    The i-th round holds the i-th pair of every method, each method's in a random order of its own: whoever stops early
    has judged a random sample of each method's pairs, as many of one as of another, and the same as everybody else.

    Args:
        folder: A run folder.
        methods: Only these; all by default.

    Raises:
        BadInput: No such method, or nothing to judge.
    """
    cells = compared(folder)
    known = list(dict.fromkeys(method for method, _ in cells))
    for method in methods or ():
        if method not in known:
            raise BadInput(f"{folder.path}: no method {method!r} to compare with {BASELINE}{nearest(method, known)}")
    of_method = [list(_shuffled(method, _of(folder, method, cells))) for method in methods or known]
    rounds = (_shuffled(i, filter(None, one)) for i, one in enumerate(zip_longest(*of_method)))
    drawn = dict[str, Drawn]()
    for one in chain.from_iterable(rounds):
        drawn.setdefault(one.key, one)
    if not drawn:
        raise no_completions(folder)
    return list(drawn.values())


def _of(folder: RunFolder, method: str, cells: Sequence[tuple[str, int]]) -> Iterable[Drawn]:
    for seed in (seed for one, seed in cells if one == method):
        for row, pair in paired(folder.completions(method, seed), folder.completions(BASELINE, seed)):
            yield Drawn(pair, method, seed, str(row["prompt_id"]), int(row["sample"]))


def _shuffled(name: object, pairs: Iterable[Drawn]) -> Iterable[Drawn]:
    kept = list(pairs)
    return (kept[place] for place in generator(0, "people", name).permutation(len(kept)))
