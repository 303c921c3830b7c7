"""What a world is drawn from: prompts, text and rewards, all of its seed alone."""

import numpy as np
import pytest

from alignarena.core.errors import BadInput
from alignarena.evaluators.exact.leaves import Leaves
from alignarena.evaluators.exact.optimum import kl, tilted
from alignarena.evaluators.exact.world import AXES, Rewards, World, parsed, prompt_text

SMALL = World(attributes=2, values=3, tokens=3, length=3)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("sizes", [{}, {"attributes": 2}, {"values": 2}, {"attributes": 2, "values": 2}])
def test_halves_share_no_combination_and_the_trained_one_shows_every_value(seed, sizes):
    world = World(seed, **sizes)
    assert not set(world.trained) & set(world.held_out)
    assert sorted([*world.trained, *world.held_out]) == world.combinations
    assert len(world.trained) - len(world.held_out) in (0, 1)
    assert all(len(set(column)) == world.values for column in zip(*world.trained, strict=True))


def test_a_seed_draws_the_world_and_no_other():
    assert all((World(3).gold(p) == World(3).gold(p)).all() for p in World(3).combinations[:3])
    assert World(3).trained == World(3).trained != World(4).trained
    assert not np.allclose(World(3).gold((0, 0, 0)), World(4).gold((0, 0, 0)))


def test_prompts_are_read_back():
    assert prompt_text((2, 0, 1)) == "a2 b0 c1"
    assert all(parsed(prompt_text(one)) == one for one in World().combinations)
    for foreign in ("", "b0 a2", "a2 b", "hello", "a2 b0 c1 please"):
        with pytest.raises(BadInput, match="is not a prompt of the exact world"):
            parsed(foreign)


def test_rewards_by_hand():
    rewards = Rewards(np.array([1.0, 10.0]), np.array([[0.1, 0.2], [0.3, 0.4]]))
    leaves = Leaves(2, 3)
    earned = dict(zip(map(tuple, leaves.ids.tolist()), rewards.each(leaves).tolist(), strict=True))
    assert earned[(2, 3, 3)] == [0, 0, 0]  # to end earns nothing
    assert earned[(1, 2, 3)] == [10, 0, 0]
    assert earned[(0, 1, 2)] == pytest.approx([1, 10.2, 0])
    assert earned[(1, 1, 0)] == pytest.approx([10, 10.4, 1.3])
    assert rewards.of(leaves) == pytest.approx(rewards.each(leaves).sum(1))


def test_gold_is_what_tokens_earn_less_the_penalty_of_not_ending():
    world = World(0, attributes=2, tokens=2, length=2, unfinished_penalty=3.0)
    rewards = world.rewards((1, 2))
    (a, b), pair = rewards.token, rewards.pair
    # end; 0 end; 1 end; 00; 01; 10; 11
    expected = [0, a, b, 2 * a + pair[0, 0] - 3, a + b + pair[0, 1] - 3, a + b + pair[1, 0] - 3, 2 * b + pair[1, 1] - 3]
    assert world.gold((1, 2)) == pytest.approx(np.array(expected))


def test_attributes_add_up_and_pairs_are_the_same_for_all_prompts():
    def token(*prompt):
        return SMALL.rewards(prompt).token

    assert token(0, 1) + token(2, 2) == pytest.approx(token(0, 2) + token(2, 1))
    assert not np.allclose(token(0, 1), token(0, 2))
    assert (SMALL.rewards((0, 1)).pair == SMALL.rewards((2, 2)).pair).all()


def test_the_overall_reward_is_both_axes():
    both = [SMALL.rewards((1, 1), axis) for axis in AXES]
    overall = SMALL.rewards((1, 1))
    assert overall.token == pytest.approx(sum(one.token for one in both) / np.sqrt(2))
    assert overall.pair == pytest.approx(sum(one.pair for one in both) / np.sqrt(2))
    with pytest.raises(BadInput, match="has the axes overall, helpful, harmless; not 'funny'"):
        SMALL.rewards((1, 1), "funny")


@pytest.mark.parametrize("seed", range(3))
def test_the_scale_is_the_deviation_under_demonstrations(seed):
    world = World(seed, tokens=4, length=3)
    variances = []
    for prompt in world.combinations:
        mass = np.exp(world.leaves.markov(world.demonstration_logits(prompt)))
        earned = world.rewards(prompt).of(world.leaves)
        variances.append(mass @ earned**2 - (mass @ earned) ** 2)
    assert np.mean(variances) == pytest.approx(1)


def test_the_hidden_share_is_a_number_of_its_own_for_every_completion():
    plain, share = World(0, attributes=2), 0.3
    world = World(0, attributes=2, hidden_share=share)
    own = np.stack([world.gold(p) - np.sqrt(1 - share) * plain.gold(p) for p in world.combinations])
    assert own.var() == pytest.approx(share, rel=0.05)
    assert own.mean() == pytest.approx(0, abs=0.02)
    assert abs(np.corrcoef(own)[np.triu_indices(len(own), 1)]).max() < 0.12  # of 1,555 completions: no prompt tells
    assert not np.allclose(world.gold((0, 0), "helpful"), world.gold((0, 0), "harmless"))
    assert (world.gold((0, 0)) == World(0, attributes=2, hidden_share=share).gold((0, 0))).all()


def test_both_texts_are_distributions_and_prompts_matter_more_to_demonstrations():
    world = World()

    def text(logits):
        return np.stack([world.leaves.markov(logits(prompt)) for prompt in world.trained])

    base, shown = text(world.pretraining_logits), text(world.demonstration_logits)
    assert np.exp(np.stack([base, shown])).sum(-1) == pytest.approx(1)
    assert kl(shown, np.roll(shown, 1, 0)).mean() > 3 * kl(base, np.roll(base, 1, 0)).mean() > 0


@pytest.mark.parametrize("seed", range(5))
def test_the_default_optimum_is_2_nats_from_the_reference(seed):
    world = World(seed)
    reference = np.stack([world.leaves.markov(world.demonstration_logits(prompt)) for prompt in world.held_out])
    gold = np.stack([world.gold(prompt) for prompt in world.held_out])
    assert kl(tilted(reference, gold, world.beta), reference).mean() >= 2


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"attributes": 0}, "needs 1 to 8 attributes"),
        ({"attributes": 9}, "needs 1 to 8 attributes"),
        ({"values": 1}, "at least 2 values"),
        ({"tokens": 20, "length": 5}, "20\\^5 completions are too many"),
        ({"hidden_share": 1.5}, "data.world.hidden_share: must be from 0 to 1"),
        ({"uniform_share": -0.1}, "data.world.uniform_share: must be from 0 to 1"),
        ({"beta": 0.0}, "data.world.beta: must be above 0"),
    ],
)
def test_a_world_too_small_or_too_large_is_refused(sizes, said):
    with pytest.raises(BadInput, match=said):
        World(**sizes)
