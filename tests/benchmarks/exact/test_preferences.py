"""Preferences without end: probabilities are gold's, completions the mixture's, the worth of segments is exact."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from alignarena.benchmarks.exact.preferences import ExactPreferences
from alignarena.core.contract import PreferenceStream
from alignarena.evaluators.exact.gold import WorldGold
from alignarena.evaluators.exact.world import World, parsed
from alignarena.paper_lab import PaperLab

WORLD = World(attributes=2, tokens=3, length=3, beta=0.4)
SIDES = ("chosen", "rejected")


def reference(world: World = WORLD) -> Any:
    return np.stack([world.leaves.markov(world.demonstration_logits(prompt)) for prompt in world.trained])


def stream(world: World = WORLD, pairs: int = 400, axis: str = "overall") -> ExactPreferences:
    return ExactPreferences(world, axis, "sft", lambda: reference(world), phases=3, pairs=pairs)


def rows_of(preferences: ExactPreferences, phase: int = 0, seed: int = 0) -> list[dict[str, Any]]:
    return preferences.rows(phase, None, PaperLab(seed)).to_list()  # type: ignore[arg-type, no-any-return]


def place(world: World, ids: list[int]) -> int:
    return int(world.leaves.place(np.array([[*ids, *[world.tokens + 1] * (world.length - len(ids))]]))[0])


@pytest.mark.parametrize("axis", ["overall", "harmless"])
def test_probabilities_are_those_of_the_difference_in_gold(axis: str) -> None:
    for row in rows_of(stream(axis=axis)):
        gold = WORLD.gold(parsed(row["prompt"]), axis)
        chosen, rejected = (gold[place(WORLD, row[f"{side}_ids"])] for side in SIDES)
        assert row["probability"] == pytest.approx(expit(chosen - rejected)) and chosen >= rejected
        for side in SIDES:
            assert row[side].split() == [f"t{token}" for token in row[f"{side}_ids"] if token < WORLD.tokens]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_completions_are_drawn_from_the_mixture(share: float) -> None:
    world, count = replace(WORLD, uniform_share=share), 40_000
    rows = rows_of(stream(world, count))
    drawn = np.zeros((len(world.trained), len(world.leaves)))
    which = {prompt: i for i, prompt in enumerate(world.trained)}
    ids = np.full((2 * count, world.length), world.tokens + 1)
    for place_of, one in zip(ids, [row[f"{side}_ids"] for row in rows for side in SIDES], strict=True):
        place_of[: len(one)] = one
    prompts = [which[parsed(row["prompt"])] for row in rows for _ in SIDES]
    np.add.at(drawn, (prompts, world.leaves.place(ids)), 1)
    assert drawn.sum(1) / drawn.sum() == pytest.approx(1 / len(world.trained), abs=0.01)
    expected = (1 - share) * np.exp(reference(world)) + share / len(world.leaves)
    distance = abs(drawn / drawn.sum(1, keepdims=True) - expected).sum(1) / 2  # total variation
    assert (distance < 0.04).all()  # 16,000 draws over 40 leaves: .02 by chance


@pytest.mark.parametrize("kind", ["return", "regret"])
def test_a_segments_text_ends_where_its_tokens_do(kind: Any) -> None:
    world = replace(WORLD, feedback_kind=kind)
    for row in rows_of(stream(world)):
        for side in SIDES:
            assert len(row[f"{side}_ids"]) == row[f"{side}_span"][1]
            assert row[side].split() == [f"t{token}" for token in row[f"{side}_ids"] if token < world.tokens]


def test_both_completions_are_drawn_alike() -> None:
    rows = rows_of(stream(pairs=4000))
    better = [row["probability"] for row in rows]
    assert 0.5 <= min(better) < 0.501 and max(better) < 1
    same = [row for row in rows if row["chosen_ids"] == row["rejected_ids"]]
    assert same and all(row["probability"] == 0.5 for row in same)


def test_whole_completions_have_no_spans_and_prompts_are_all_different() -> None:
    rows = rows_of(stream())
    assert len({row["prompt_id"] for row in rows}) == len(rows)
    assert set(rows[0]) == {"prompt_id", "prompt", "probability", *SIDES, "chosen_ids", "rejected_ids"}


def value(world: World, prompt: tuple[int, ...], prefix: list[int]) -> float:
    """The soft value of a state: beta log E[exp(gold / beta)] over the completions that begin like this."""
    i = world.trained.index(prompt)
    begins = (world.leaves.ids[:, : len(prefix)] == prefix).all(1)
    mass = reference(world)[i][begins]
    return float(world.beta * (logsumexp(mass + world.gold(prompt)[begins] / world.beta) - logsumexp(mass)))


def earned(world: World, prompt: tuple[int, ...], ids: list[int], start: int, stop: int) -> float:
    """What the tokens of a segment earn, one by one; a completion that is cut pays at its last token."""
    rewards, total = world.rewards(prompt), 0.0
    for t in range(start, stop):
        if ids[t] < world.tokens:
            total += rewards.token[ids[t]] + (rewards.pair[ids[t - 1], ids[t]] if t else 0.0)
        if t == world.length - 1 and ids[t] < world.tokens:
            total -= world.unfinished_penalty
    return float(total)


@pytest.mark.parametrize("kind", ["return", "regret"])
def test_segments_are_worth_what_they_earn_or_how_little_they_regret(kind: Any) -> None:
    world = replace(WORLD, feedback_kind=kind)
    for row in rows_of(stream(world, 200)):
        prompt, worth = parsed(row["prompt"]), {}
        for side in SIDES:
            ids, (start, stop) = row[f"{side}_ids"], row[f"{side}_span"]
            assert 0 <= start < stop == len(ids)
            if kind == "return":
                worth[side] = earned(world, prompt, ids, start, stop)
            else:  # the sum of soft advantages telescopes: no reward comes before the end
                worth[side] = value(world, prompt, ids[:stop]) - value(world, prompt, ids[:start])
        assert row["probability"] == pytest.approx(expit(worth["chosen"] - worth["rejected"]), abs=1e-9)
        assert row["probability"] >= 0.5


@pytest.mark.parametrize(("kind", "hidden_share"), [("return", 0.0), ("regret", 0.0), ("return", 0.4), ("regret", 0.4)])
def test_over_whole_completions_both_are_gold(kind: Any, hidden_share: float) -> None:
    world = replace(WORLD, feedback_kind=kind, hidden_share=hidden_share)
    whole = 0
    for row in rows_of(stream(world, 1500)):
        ids = [row[f"{side}_ids"] for side in SIDES]
        ends = all(one[-1] == world.tokens or len(one) == world.length for one in ids)
        if ends and row["chosen_span"][0] == row["rejected_span"][0] == 0:
            gold = world.gold(parsed(row["prompt"]))
            assert row["probability"] == pytest.approx(expit(gold[place(world, ids[0])] - gold[place(world, ids[1])]))
            whole += 1
    assert whole > 50


def test_segments_begin_and_stop_anywhere() -> None:
    rows = rows_of(stream(replace(WORLD, feedback_kind="regret"), 2000))
    spans = {tuple(row[f"{side}_span"]) for row in rows for side in SIDES}
    assert spans == {(start, stop) for stop in (1, 2, 3) for start in range(stop)}
    assert any(row["chosen_span"][0] != row["rejected_span"][0] for row in rows)


def test_a_phase_depends_on_its_number_and_the_seed_alone() -> None:
    preferences = stream()
    assert isinstance(preferences, PreferenceStream)
    first = rows_of(preferences)
    assert first == rows_of(preferences) == rows_of(stream())
    assert first != rows_of(preferences, phase=1) and first != rows_of(preferences, seed=1)
    assert [row["prompt_id"] for row in first] != [row["prompt_id"] for row in rows_of(preferences, phase=1)]


def test_its_digest_names_what_its_rows_depend_on() -> None:
    preferences = stream()
    others = [stream(axis="helpful"), stream(pairs=5), stream(replace(WORLD, feedback_kind="regret")),
              replace(preferences, reference="other"), replace(preferences, phases=4)]  # fmt: skip
    assert preferences.digest == stream().digest
    assert len({preferences.digest, *(other.digest for other in others)}) == 6
    assert preferences.oracle == WorldGold(WORLD, "overall") and stream(axis="helpful").oracle.axis == "helpful"  # type: ignore[attr-defined]
