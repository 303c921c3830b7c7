"""A world small enough to enumerate: prompts made of attributes, two reward axes, two stated text distributions.

A prompt is a combination of attribute values; a completion is a short string over a few tokens. Everything in a world
is a random draw of its seed, apart from any training seed, so that worlds can be the random effect of a comparison.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from alignarena.core.errors import BadInput
from alignarena.core.seeds import generator
from alignarena.evaluators.exact.leaves import Leaves

Floats = NDArray[np.float64]
AXES = ("helpful", "harmless")
_LETTERS = "abcdefgh"
# Standard deviations of the draws: of a logit of the text distributions, of the parts of a reward axis.
_BIGRAM, _TOPIC, _END = 0.7, 0.8, 0.3
_TOKEN, _ATTRIBUTE, _PAIR = 0.5, 0.7, 0.7


@dataclass(frozen=True)
class World:
    """What a world is drawn from. All sizes are small: every completion of every prompt is enumerated."""

    seed: int = 0
    attributes: int = 3
    values: int = 3  # of each attribute; half of the combinations are held out for evaluation
    tokens: int = 6  # a completion is made of, beside the end
    length: int = 4  # tokens of the longest completion, its end included; must be model.max_new_tokens
    rows: int = 64  # rows of each trained combination in a split: the same prompt, asked again
    demonstrations: int = 64  # of each trained combination
    beta: float = 0.3  # strength at which the optimum is defined: reference exp(gold / beta)
    hidden_share: float = 0.0  # of gold's variance that is a number of its own for every completion: none can learn it
    unfinished_penalty: float = 1.0  # gold lost by a completion that does not end, in standard deviations of gold
    labeler_noise: float = 0.0  # deviation of the AI labeler's opinion of a completion from gold, in gold's units
    uniform_share: float = 0.5  # of exact comparisons whose completions are drawn uniformly, not from the reference
    feedback_kind: Literal["whole", "return", "regret"] = "whole"  # whole completions, or segments labelled by either

    def __post_init__(self) -> None:
        """Check the sizes.

        Raises:
            BadInput: Too few values, too many completions to enumerate, or a share outside [0, 1].
        """
        if not (1 <= self.attributes <= len(_LETTERS) and self.values >= 2 and self.tokens >= 2 and self.length >= 2):
            raise BadInput("data.world: needs 1 to 8 attributes, and at least 2 values, 2 tokens and length 2")
        if self.tokens**self.length > 100_000:
            raise BadInput(f"data.world: {self.tokens}^{self.length} completions are too many to enumerate")
        if not self.labeler_noise >= 0:
            raise BadInput(f"data.world.labeler_noise: must be 0 or more, got {self.labeler_noise}")
        for name in ("hidden_share", "uniform_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise BadInput(f"data.world.{name}: must be from 0 to 1, got {getattr(self, name)}")
        if not self.beta > 0:
            raise BadInput(f"data.world.beta: must be above 0, got {self.beta}")

    # -- prompts ------------------------------------------------------------------------------------------------------

    @property
    def combinations(self) -> list[tuple[int, ...]]:
        """Every combination of attribute values."""
        return list(product(range(self.values), repeat=self.attributes))

    @property
    def trained(self) -> list[tuple[int, ...]]:
        """The combinations that methods are given: a random half that shows every value of every attribute."""
        return self._halves[0]

    @property
    def held_out(self) -> list[tuple[int, ...]]:
        """The combinations that policies are evaluated on."""
        return self._halves[1]

    @cached_property
    def _halves(self) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
        for attempt in range(1000):
            order = self._draw("halves", attempt).permutation(len(self.combinations))
            first = [self.combinations[i] for i in sorted(order[: (len(order) + 1) // 2])]
            if all(len(set(column)) == self.values for column in zip(*first, strict=True)):
                return first, [one for one in self.combinations if one not in set(first)]
        raise BadInput("data.world: no half of the combinations shows every value; use more attributes")

    # -- distributions of text ----------------------------------------------------------------------------------------

    def pretraining_logits(self, prompt: tuple[int, ...]) -> Floats:
        """Return logits (tokens + 1, tokens + 1) of the next token after each token of what the base is trained on.

        The last row is the start of a completion, the last column its end. Prompts matter little here.
        """
        return self._markov["bigram"] + 0.3 * self._topic(prompt)

    def demonstration_logits(self, prompt: tuple[int, ...]) -> Floats:
        """Return the same of the demonstrations, in which the prompt matters."""
        return self._markov["bigram"] + self._topic(prompt)

    def _topic(self, prompt: tuple[int, ...]) -> Floats:
        parts = [self._markov["topic"][attribute, value] for attribute, value in enumerate(prompt)]
        return np.sum(parts, axis=0)[None, :] / np.sqrt(self.attributes)  # type: ignore[no-any-return]

    @cached_property
    def _markov(self) -> dict[str, Floats]:
        draw, size = self._draw("text"), self.tokens + 1
        bigram = _BIGRAM * draw.normal(size=(size, size))
        bigram[:, -1] = 1.6 + _END * draw.normal(size=size)
        bigram[-1, -1] = -1.0  # few completions are empty
        topic = _TOPIC * draw.normal(size=(self.attributes, self.values, size))
        topic[..., -1] = 0.0  # no prompt asks for long or short answers
        return {"bigram": bigram, "topic": topic}

    # -- rewards ------------------------------------------------------------------------------------------------------

    def rewards(self, prompt: tuple[int, ...], axis: str = "overall") -> Rewards:
        """Return what each token of a completion earns, in standard deviations of gold over demonstrations.

        Raises:
            BadInput: No such axis.
        """
        if axis == "overall":
            parts = [self._parts(prompt, one) for one in AXES]
            return Rewards(*(sum(arrays) / np.sqrt(2) / self._scale for arrays in zip(*parts, strict=True)))
        if axis not in AXES:
            raise BadInput(f"the exact world has the axes overall, {', '.join(AXES)}; not {axis!r}")
        return Rewards(*(array / self._scale for array in self._parts(prompt, axis)))

    def _parts(self, prompt: tuple[int, ...], axis: str) -> tuple[Floats, Floats]:
        drawn = self._drawn_rewards[axis]
        of_prompt = sum(drawn["attribute"][i, value] for i, value in enumerate(prompt)) / np.sqrt(self.attributes)
        return drawn["token"] + of_prompt, drawn["pair"]

    @cached_property
    def _drawn_rewards(self) -> dict[str, dict[str, Floats]]:
        found = {}
        for axis in AXES:
            draw = self._draw("reward", axis)
            found[axis] = {
                "token": _TOKEN * draw.normal(size=self.tokens),
                "attribute": _ATTRIBUTE * draw.normal(size=(self.attributes, self.values, self.tokens)),
                "pair": _PAIR * draw.normal(size=(self.tokens, self.tokens)),
            }
        return found

    @cached_property
    def _scale(self) -> float:
        """The deviation of the plain sum of both axes over the demonstrations' distribution, within prompts."""
        leaves, variances = self.leaves, []
        for prompt in self.combinations:
            parts = [self._parts(prompt, axis) for axis in AXES]
            token, pair = (sum(arrays) / np.sqrt(2) for arrays in zip(*parts, strict=True))
            weights = np.exp(leaves.markov(self.demonstration_logits(prompt)))
            total = Rewards(token, pair).of(leaves)
            variances.append(weights @ (total - weights @ total) ** 2)
        return float(np.sqrt(np.mean(variances)))

    def gold(self, prompt: tuple[int, ...], axis: str = "overall") -> Floats:
        """Return the hidden reward (N,) of every completion of a prompt."""
        structured = self.rewards(prompt, axis).of(self.leaves) - self.unfinished_penalty * ~self.leaves.finished
        if not self.hidden_share:
            return structured
        own = self._draw("hidden", axis, *prompt).normal(size=len(self.leaves))
        return np.sqrt(1 - self.hidden_share) * structured + np.sqrt(self.hidden_share) * own  # type: ignore[no-any-return]

    def opinion(self, prompt: tuple[int, ...]) -> Floats:
        """Return what the AI labeler takes for the reward (N,) of every completion of a prompt: gold and its errors."""
        errors = self._draw("labeler", *prompt).normal(size=len(self.leaves))
        return self.gold(prompt) + self.labeler_noise * errors

    @property
    def leaves(self) -> Leaves:
        """Every completion."""
        return _leaves(self.tokens, self.length)

    def _draw(self, *names: object) -> np.random.Generator:
        return generator(self.seed, "world", *names)


@dataclass(frozen=True)
class Rewards:
    """What tokens (tokens,) and pairs of neighbouring tokens (tokens, tokens) earn."""

    token: Floats
    pair: Floats

    def of(self, leaves: Leaves) -> Floats:
        """Return the sum of every completion (N,)."""
        return self.each(leaves).sum(1)  # type: ignore[no-any-return]

    def each(self, leaves: Leaves) -> Floats:
        """Return what every token of every completion earns (N, length); ends and padding earn nothing."""
        inside = leaves.ids < leaves.tokens
        ids = np.where(inside, leaves.ids, 0)
        earned = np.where(inside, self.token[ids], 0.0)
        earned[:, 1:] += np.where(inside[:, 1:], self.pair[ids[:, :-1], ids[:, 1:]], 0.0)
        return earned


def prompt_text(prompt: tuple[int, ...]) -> str:
    """Return a combination as the text of a prompt, such as ``a2 b0 c1``."""
    return " ".join(f"{_LETTERS[i]}{value}" for i, value in enumerate(prompt))


def parsed(text: Any) -> tuple[int, ...]:
    """Return the combination that a prompt's text names.

    Raises:
        BadInput: The text is not a prompt of an exact world.
    """
    words = str(text).split()
    try:
        values = tuple(int(word[1:]) for word in words)
    except ValueError:
        values = ()
    if not values or prompt_text(values) != " ".join(words):
        raise BadInput(f"{text!r} is not a prompt of the exact world, such as 'a2 b0 c1'")
    return values


@lru_cache(maxsize=8)
def _leaves(tokens: int, length: int) -> Leaves:
    return Leaves(tokens, length)
