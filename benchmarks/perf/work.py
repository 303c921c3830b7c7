"""What both sides compute: real dialogues (b) and quickstart prompts (a), as token ids that neither side tokenises."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, cycle, islice
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.benchmarks.hh import COLUMNS, find_folder, parse_pair
from alignarena.benchmarks.quickstart import quickstart_demonstrations, quickstart_rows
from alignarena.benchmarks.row_files import read_rows
from alignarena.benchmarks.splits import Dropped
from alignarena.core.seeds import generator
from alignarena.harness.tokens import Ids, Tokens

MAX_LENGTH = 512  # tokens of a prompt and one completion
DIALOGUES = "helpful-base.test.jsonl.gz"
# Tokens of helpful-base at 0, 10, 25, 50, 75, 90 and 100 % of its 2235 test rows within MAX_LENGTH, SmolLM2's
# tokenizer: prompt, chosen, rejected.
_SHARES = (0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 1.0)
_PROFILE = ((15, 23, 33, 105, 197, 286, 483), (3, 12, 22, 42, 74, 119, 352), (3, 10, 17, 32, 58, 91, 439))


@dataclass(frozen=True)
class Comparison:
    """A prompt and completions of it, the best first."""

    prompt: Ids
    completions: tuple[Ids, ...]

    @property
    def tokens(self) -> int:
        """Useful tokens: each of the data's tokens once, however often an implementation repeats it."""
        return len(self.prompt) + sum(map(len, self.completions))

    @property
    def longest(self) -> int:
        """Tokens of the prompt with its longest completion."""
        return len(self.prompt) + max(map(len, self.completions))

    def cut(self, count: int) -> Comparison:
        """Keep the first completions only."""
        return Comparison(self.prompt, self.completions[:count])


@dataclass(frozen=True)
class Work:
    """Comparisons and what they are, in words."""

    comparisons: tuple[Comparison, ...]
    label: str

    def take(self, count: int) -> tuple[Comparison, ...]:
        """Return the first comparisons, beginning again where there are too few."""
        return tuple(islice(cycle(self.comparisons), count))

    @property
    def shortest(self) -> tuple[Comparison, ...]:
        """Return the comparisons by length: what a check in fp32 can afford."""
        return tuple(sorted(set(self.comparisons), key=lambda one: (one.tokens, one.prompt)))


def dialogues(tokens: Tokens, count: int, max_length: int = MAX_LENGTH) -> Work:
    """Return work (b): the first pairs of helpful-base that fit, else dialogues of the same lengths.

    Args:
        tokens: The tokenizer of the model.
        count: Pairs.
        max_length: Tokens of a prompt and one completion.
    """
    folder = find_folder(None)
    if folder is None or not (folder / DIALOGUES).is_file():
        return Work(tuple(islice(_invented(tokens, max_length), count)), "(b) dialogues of helpful-base's lengths")
    fitting = (one for one in _real(tokens, read_rows(folder / DIALOGUES, COLUMNS)) if one.longest <= max_length)
    return Work(tuple(islice(fitting, count)), "(b) hh-rlhf helpful-base dialogues")


def _real(tokens: Tokens, rows: Sequence[dict[str, Any]]) -> Iterator[Comparison]:
    for row in rows:
        try:
            pair = parse_pair(row)
        except Dropped:
            continue
        completions = tokens.completion_ids(pair.chosen), tokens.completion_ids(pair.rejected)
        if completions[0] != completions[1]:  # our side drops such a pair: it is no preference
            yield Comparison(tokens.prompt_ids(pair.prompt), completions)


def _invented(tokens: Tokens, max_length: int) -> Iterator[Comparison]:
    """Yield dialogues whose text is the quickstart's sentences and whose lengths follow the stored profile."""
    sentences = [tokens.completion_ids(row["completion"])[:-1] for row in quickstart_demonstrations()]
    stream = cycle([token for sentence in sentences for token in sentence])
    draw = generator(0, "dialogues")
    while True:
        sizes = [round(float(np.interp(draw.random(), _SHARES, lengths))) for lengths in _PROFILE]
        if sizes[0] + max(sizes[1:]) <= max_length:
            prompt, *completions = (tuple(islice(stream, size)) for size in sizes)
            yield Comparison(prompt, tuple((*ids[:-1], tokens.eos_id) for ids in completions))


def quickstart(tokens: Tokens, count: int, k: int = 4) -> Work:
    """Return work (a): quickstart prompts, each with k of the hand-written sentences, ranked at random.

    Args:
        tokens: The tokenizer of the model.
        count: Prompts.
        k: Completions a prompt.
    """
    sentences = [tokens.completion_ids(row["completion"]) for row in quickstart_demonstrations()]
    draw = generator(0, "quickstart", k)
    made = []
    for row in islice(cycle(quickstart_rows("reward_model")), count):
        chosen = draw.choice(len(sentences), size=k, replace=False)
        made.append(Comparison(tokens.prompt_ids(row["prompt"]), tuple(sentences[int(i)] for i in chosen)))
    return Work(tuple(made), f"(a) quickstart prompts, {k} completions each")


def our_rows(comparisons: Sequence[Comparison], tokens: Tokens) -> Dataset:
    """Return rows with every column a loss may read: demonstration, pair and ranking of each comparison."""
    return Dataset.from_list([_our_row(i, one, tokens) for i, one in enumerate(comparisons)])


def _our_row(place: int, one: Comparison, tokens: Tokens) -> dict[str, Any]:
    texts = [tokens.text(ids) for ids in one.completions]
    ids = [list(ids) for ids in one.completions]
    row = {"prompt_id": str(place), "prompt": tokens.tokenizer.decode(one.prompt), "prompt_ids": list(one.prompt)}
    row |= {"completion": texts[0], "completion_ids": ids[0], "completions": texts, "completions_ids": ids}
    if len(ids) > 1:
        row |= {"chosen": texts[0], "chosen_ids": ids[0], "rejected": texts[1], "rejected_ids": ids[1]}
    return row | {"ranks": [rank + 1 for rank in range(len(ids))]}


def pairs(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """Spread each comparison into all pairs of its completions, in the order of ``itertools.combinations``."""
    return [Comparison(one.prompt, pair) for one in comparisons for pair in combinations(one.completions, 2)]
