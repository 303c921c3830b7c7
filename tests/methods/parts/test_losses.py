"""Numbers are worked out by hand in the comments, not by the formulas under test.

Used throughout: -log sigmoid of -3, -2, -1, -.5, 0, .5, 1, 2, 3. The losses of pairs are in test_pair_losses.py, too.
"""

import math
from dataclasses import replace

import pytest
import torch
from loss_batches import NLS, close, pair_batch
from torch.testing import assert_close

from alignarena.core.contract import Batch, Loss
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss, PairwiseRewardLoss

NAN = float("nan")
LOSSES: list[Loss] = [SFTLoss(), DPOLoss(), PairwiseRewardLoss(), KWiseRewardLoss(), PPOLoss()]


def ranking_batch(*rows, margins=None, dtype=torch.float32):
    """Rows are (scores, ranks) of one to many completions; what is missing is garbage."""
    widest = max(len(scores) for scores, _ in rows)
    fill = lambda values, pad: [*values, *[pad] * (widest - len(values))]  # noqa: E731
    mask = torch.zeros(len(rows), widest, 2)
    for row, (scores, _) in enumerate(rows):
        mask[row, : len(scores)] = 1.0
    columns = {"ranks": torch.tensor([fill(ranks, -1.0) for _, ranks in rows])}
    if margins is not None:
        longest = max(len(margin) for margin in margins)
        columns["margins"] = torch.tensor([[*margin, *[NAN] * (longest - len(margin))] for margin in margins])
    scores = torch.tensor([fill(scores, NAN) for scores, _ in rows], dtype=dtype, requires_grad=True)
    return {"completions": scores}, Batch(mask={"completions": mask}, columns=columns)


def ppo_batch(dtype=torch.float32):
    """Ratios 1.5 and .5 in the first row; 1.1 in the second, which has one token."""
    old = torch.tensor([[-1.0, -2.0], [-1.0, 0.0]], dtype=dtype)
    ratio = torch.tensor([[1.5, 0.5], [1.1, 1.0]], dtype=dtype)
    new = (old + ratio.log()).requires_grad_()
    values = torch.tensor([[0.5, 1.1], [0.0, 0.0]], dtype=dtype, requires_grad=True)
    batch = Batch(
        mask={"completion": torch.tensor([[1.0, 1.0], [1.0, 0.0]])},
        old={"completion": old},
        values={"completion": values},
        old_values={"completion": torch.tensor([[0.0, 1.0], [0.0, 0.0]], dtype=dtype)},
        prepared={
            "advantages": torch.tensor([[1.0, -1.0], [2.0, 0.0]], dtype=dtype),
            "returns": torch.tensor([[1.0, 0.0], [2.0, 0.0]], dtype=dtype),
        },
    )
    return {"completion": new}, batch


def rollouts(score=(2.0, 1.0), finished=(True, False)):
    """Completions of three tokens and one; KL 1 + 0 + 2 and 0 nats."""
    pad = NAN
    return Batch(
        mask={"completion": torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]])},
        finished={"completion": torch.tensor(finished)},
        old={"completion": torch.tensor([[-1.0, -2.0, -1.0], [-1.0, pad, pad]])},
        reference={"completion": torch.tensor([[-2.0, -2.0, -3.0], [-1.0, pad, pad]])},
        old_values={"completion": torch.tensor([[0.5, 1.0, 0.5], [0.25, pad, pad]])},
        columns={"score": torch.tensor(score)},
    )


def test_sft_sums_the_completion_tokens():
    mask = {"completion": torch.tensor([[1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])}
    loss, _ = SFTLoss()({"completion": torch.tensor([[-0.5, -1.0, -9.0], [-2.0, -9.0, -9.0]])}, Batch(mask=mask))
    close(loss, 1.5, 2.0)
    assert SFTLoss().per == "token"


def test_dpo_by_hand():
    loss, metrics = DPOLoss(beta=0.1)(*pair_batch())
    close(loss, NLS[0.5], NLS[-1])
    close(metrics["margin"], 0.5, -1.0)
    close(metrics["rewards_chosen"], 0.2, 0.0)
    close(metrics["rewards_rejected"], -0.3, 1.0)
    close(metrics["logps_chosen"], -3.0, -1.0)
    close(metrics["accuracy"], 1.0, 0.0)
    assert not any(metric.requires_grad for metric in metrics.values())


def test_conservative_dpo_by_hand():
    loss, _ = DPOLoss(beta=0.1, label_smoothing=0.1)(*pair_batch())
    close(loss, 0.524077, 1.213262)  # .9 * .474077 + .1 * .974077; .9 * 1.313262 + .1 * .313262


def test_t4_conservative_dpo_is_a_mixture_of_both_labels():
    outputs, batch = pair_batch()
    swap = lambda sides: {"chosen": sides["rejected"], "rejected": sides["chosen"]}  # noqa: E731
    flipped = Batch(mask=swap(batch.mask), reference=swap(batch.reference))
    smoothed = {eps: DPOLoss(label_smoothing=eps)(outputs, batch)[0] for eps in (0.0, 0.3, 1.0)}
    assert_close(DPOLoss(label_smoothing=0.7)(swap(outputs), flipped)[0], smoothed[0.3])
    assert_close(DPOLoss()(swap(outputs), flipped)[0], smoothed[1.0])
    assert_close(0.7 * smoothed[0.0] + 0.3 * smoothed[1.0], smoothed[0.3])


def test_t4_conservative_dpo_rests_where_the_probability_is_1_minus_eps():
    outputs, batch = pair_batch()
    beta = math.log(0.9 / 0.1) / 5  # sigmoid(5 beta) = .9 in the first pair
    DPOLoss(beta, label_smoothing=0.1)(outputs, batch)[0][0].backward()
    assert_close(outputs["chosen"].grad, torch.zeros(2, 2), atol=1e-7, rtol=0)


def test_reference_free_dpo_by_hand():
    outputs, batch = pair_batch(torch.float64)
    bare = Batch(mask=batch.mask)  # no reference model is asked for
    loss, metrics = DPOLoss(beta=0.5, reference_free=True)(outputs, bare)
    close(loss, NLS[0.5], NLS[1])  # log-probs -3 and -4, -1 and -3
    close(metrics["margin"], 0.5, 1.0)
    close(metrics["rewards_rejected"], -2.0, -1.5)
    assert (DPOLoss(reference_free=True).needs, DPOLoss().needs) == (frozenset(), {"reference"})


def test_t5_dpo_at_the_reference_model():
    outputs, batch = pair_batch()
    reference = {side: logps.detach().clone() for side, logps in outputs.items()}
    loss, metrics = DPOLoss(beta=0.2)(outputs, replace(batch, reference=reference))
    loss.sum().backward()
    close(loss, NLS[0], NLS[0])
    close(metrics["accuracy"], 0.5, 0.5)  # a tie counts half, not as an error
    assert_close(outputs["chosen"].grad, -0.1 * batch.mask["chosen"])
    assert_close(outputs["rejected"].grad, 0.1 * batch.mask["rejected"])


def test_t6_identical_pairs_teach_nothing():
    outputs, batch = pair_batch()
    same = Batch(
        mask=dict.fromkeys(batch.mask, batch.mask["chosen"]),
        reference=dict.fromkeys(batch.mask, batch.reference["chosen"]),
    )
    loss, _ = DPOLoss()(dict.fromkeys(batch.mask, outputs["chosen"]), same)
    loss.sum().backward()
    close(loss, NLS[0], NLS[0])
    assert_close(outputs["chosen"].grad, torch.zeros(2, 2))

    score = torch.tensor([1.5], requires_grad=True)
    loss, _ = PairwiseRewardLoss(margin=True)(
        {"chosen": score, "rejected": score}, Batch(mask={}, columns={"margin": torch.tensor([1.0])})
    )
    loss.sum().backward()
    close(loss, NLS[-1])  # log(1 + e)
    close(score.grad, 0.0)


def test_pairwise_reward_by_hand():
    outputs = {"chosen": torch.tensor([2.0, 0.0, 1.0]), "rejected": torch.tensor([1.0, 0.0, 3.0])}
    batch = Batch(mask={}, columns={"margin": torch.tensor([1.0, 1.0, 1.0])})
    loss, metrics = PairwiseRewardLoss()(outputs, batch)
    close(loss, NLS[1], NLS[0], NLS[-2])
    close(metrics["accuracy"], 1.0, 0.5, 0.0)
    close(metrics["margin"], 1.0, 0.0, -2.0)
    close(PairwiseRewardLoss(margin=True)(outputs, batch)[0], NLS[0], NLS[-1], NLS[-3])


def test_t3_margin_0_is_bradley_terry_and_a_larger_margin_costs_more():
    chosen = torch.tensor([-1.0, 0.0, 2.0], requires_grad=True)
    outputs = {"chosen": chosen, "rejected": torch.zeros(3)}
    plain = PairwiseRewardLoss()(outputs, Batch(mask={}))[0]
    previous = plain
    for margin in (0.0, 1 / 3, 1.0, 3.0):
        loss, _ = PairwiseRewardLoss(margin=True)(outputs, Batch(mask={}, columns={"margin": torch.full((3,), margin)}))
        (gradient,) = torch.autograd.grad(loss.sum(), chosen)
        assert (gradient < 0).all()
        if margin:
            assert (loss > previous).all()
        else:
            assert_close(loss, plain)
        previous = loss


def test_kwise_of_4_and_9_in_one_batch_is_a_mean_over_prompts():
    four = ([3.0, 2.0, 1.0, 0.0], [1.0, 2.0, 3.0, 4.0])  # gaps 1, 1, 1, 2, 2, 3
    nine = ([0.0] * 8 + [1.0], [float(rank) for rank in range(9, 0, -1)])  # 8 gaps of 1 and 28 of 0
    loss, metrics = KWiseRewardLoss()(*ranking_batch(four, nine))
    # (3 * .313262 + 2 * .126928 + .048587) / 6 and (8 * .313262 + 28 * .693147) / 36
    close(loss, 0.207038, 0.608728)
    close(loss.mean(0, keepdim=True), 0.407883)  # the mean over all 42 pairs would be .551344
    close(metrics["accuracy"], 1.0, 22 / 36)  # 28 ties in score count half
    close(metrics["margin"], 10 / 6, 8 / 36)


def test_kwise_drops_ties_and_divides_by_the_strict_pairs():
    loss, metrics = KWiseRewardLoss()(*ranking_batch(([1.0, 0.0, 2.0], [1.0, 1.0, 2.0])))
    close(loss, (NLS[-1] + NLS[-2]) / 2)  # third against first and against second; first against second is a tie
    close(metrics["accuracy"], 0.0)


def test_t2_kwise_of_ties_only_is_silent():
    outputs, batch = ranking_batch(([1.0, 2.0, 3.0], [1.0, 1.0, 1.0]), ([5.0], [1.0]), ([1.0, 0.0], [2.0, 1.0]))
    loss, metrics = KWiseRewardLoss()(outputs, batch)
    loss.sum().backward()
    close(loss, 0.0, 0.0, NLS[-1])
    close(metrics["accuracy"], 0.5, 0.5, 0.0)
    close(metrics["margin"], 0.0, 0.0, -1.0)
    # 1 / (1 + e^-1) on the last row, nothing elsewhere, NaN padding included
    assert_close(outputs["completions"].grad, torch.tensor([[0.0] * 3, [0.0] * 3, [0.731059, -0.731059, 0.0]]))


def test_t2_kwise_of_2_is_the_pairwise_loss():
    chosen, rejected = torch.tensor([0.3, -1.0, 2.0]), torch.tensor([0.1, 1.0, 2.0])
    rows = [([c, r], [1.0, 2.0]) for c, r in zip(chosen.tolist(), rejected.tolist(), strict=True)]
    margins = torch.tensor([1.0, 0.0, 2.0])
    pair, pair_metrics = PairwiseRewardLoss(margin=True)(
        {"chosen": chosen, "rejected": rejected}, Batch(mask={}, columns={"margin": margins})
    )
    kwise, metrics = KWiseRewardLoss(margin_scale=1.0)(*ranking_batch(*rows, margins=margins[:, None].tolist()))
    assert_close(kwise, pair)
    assert_close(dict(metrics), dict(pair_metrics))


def test_kwise_margins_are_found_by_each_rows_own_number_of_completions():
    three = ([1.0, 0.0, 0.0], [2.0, 1.0, 3.0])
    four = ([0.0] * 4, [1.0, 2.0, 3.0, 4.0])
    rows = ranking_batch(three, four, margins=[[0.5, 0.0, 1.5], [0.0, 0.0, 0.0, 0.0, 0.0, 1.5]])
    loss, _ = KWiseRewardLoss(margin_scale=2.0)(*rows)
    # pairs (0, 1): gap -1 - 1; (0, 2): 1 - 0; (1, 2): 0 - 3
    close(loss, (NLS[-2] + NLS[1] + NLS[-3]) / 3, (5 * NLS[0] + NLS[-3]) / 6)


def test_reward_losses_name_the_columns_they_use():
    assert PairwiseRewardLoss().columns == frozenset()
    assert PairwiseRewardLoss(margin=True).columns == {"margin"}
    assert KWiseRewardLoss().columns == {"ranks"}
    assert KWiseRewardLoss(margin_scale=1.0).columns == {"ranks", "margins"}


def test_t10_a_constant_on_all_scores_changes_no_reward_model_loss():
    scores, ranks = [0.5, -1.0, 2.0], [2.0, 3.0, 1.0]
    base, _ = KWiseRewardLoss()(*ranking_batch((scores, ranks)))
    moved, _ = KWiseRewardLoss()(*ranking_batch(([score + 7 for score in scores], ranks)))
    assert_close(moved, base)
    pair = {"chosen": torch.tensor([0.5]), "rejected": torch.tensor([2.0])}
    moved_pair = {side: score + 7 for side, score in pair.items()}
    assert_close(PairwiseRewardLoss()(moved_pair, Batch(mask={}))[0], PairwiseRewardLoss()(pair, Batch(mask={}))[0])


def test_t10_a_constant_on_all_scores_changes_no_whitened_advantage_nor_the_weight_of_not_finishing():
    loss = PPOLoss(lam=1.0)
    base, moved = (loss.prepare(rollouts((2.0 + c, 1.0 + c)), {}) for c in (0.0, 7.0))
    assert_close(moved["advantages"], base["advantages"])
    raw = replace(loss, whiten_advantages=False)
    base, moved = (raw.prepare(rollouts((2.0 + c, 1.0 + c)), {}) for c in (0.0, 7.0))
    assert_close(moved["advantages"] - base["advantages"], 7.0 * rollouts().mask["completion"])


def test_ppo_prepare_by_hand():
    state: dict[str, float] = {}
    loss = PPOLoss(kl_coef=0.5, lam=0.5, missing_eos_penalty=1.0, whiten_advantages=False)
    prepared = loss.prepare(rollouts(), state)
    # rewards -.5 * (1, 0, 2) + (0, 0, 2) and 1 - 1 = 0; then as in test_gae_by_hand
    assert_close(prepared["advantages"], torch.tensor([[-0.125, -0.25, 0.5], [-0.25, 0.0, 0.0]]))
    assert_close(prepared["returns"], torch.tensor([[0.375, 0.75, 1.0], [0.0, 0.0, 0.0]]))
    assert state == pytest.approx(
        {
            "kl_coef": 0.5,
            "objective/kl": 1.5,
            "objective/scores": 1.5,
            "objective/finished": 0.5,
            "objective/rlhf_reward": 0.25,
            # returns .375, .75, 1, 0: mean .53125, squares .5742188; less values -.125, -.25, .5, -.25: .3867188
            "objective/explained_variance": 1 - 0.38671875 / 0.57421875,
        }
    )


def test_ppo_whitens_advantages_after_the_returns():
    prepared = PPOLoss(kl_coef=0.5, lam=0.5).prepare(rollouts(), {})
    # of -.125, -.25, .5, -.25: mean -.03125, variance .38671875 / 4, std .3109336
    expected = torch.tensor([[-0.301511, -0.703526, 1.708564], [-0.703526, 0.0, 0.0]])
    assert_close(prepared["advantages"], expected, atol=2e-6, rtol=0)
    assert_close(prepared["returns"], torch.tensor([[0.375, 0.75, 1.0], [0.0, 0.0, 0.0]]))


def test_ppo_controller_carries_its_coefficient_to_the_next_phase():
    loss = PPOLoss(kl_coef=0.5, target_kl=1.0, kl_horizon=10)
    state: dict[str, float] = {}
    loss.prepare(rollouts(), state)
    assert state["kl_coef"] == pytest.approx(0.52)  # error .5 is clipped to .2; 2 completions of 10
    assert state["objective/rlhf_reward"] == pytest.approx(0.25)  # still with .5
    loss.prepare(rollouts(), state)
    assert state["kl_coef"] == pytest.approx(0.5408)
    assert state["objective/rlhf_reward"] == pytest.approx(0.22)  # (2 - .52 * 3) / 2


def test_ppo_by_hand():
    outputs, batch = ppo_batch()
    loss, metrics = PPOLoss()(outputs, batch)
    # policy: max(-1.5, -1.2) + max(.5, .8) = -.4; -2.2
    # values: max(.5^2, (.2 - 1)^2) / 2 + 1.1^2 / 2 = .925; 2^2 / 2
    close(loss, -0.4 + 0.0925, -2.2 + 0.2)
    close(metrics["policy_loss"], -0.4, -2.2)
    close(metrics["value_loss"], 0.925, 2.0)
    close(metrics["ratio"], 2.0, 1.1)
    close(metrics["clipfrac"], 2.0, 0.0)
    close(metrics["approxkl"], 0.322427, 0.004542)  # (.405465^2 + .693147^2) / 2; .0953102^2 / 2
    loss.sum().backward()
    # clipped tokens teach the policy nothing; -advantage * ratio elsewhere
    assert_close(outputs["completion"].grad, torch.tensor([[0.0, 0.0], [-2.2, 0.0]]))
    # a value that moved past its clip is held; vf_coef * (value - return) elsewhere
    assert_close(batch.values["completion"].grad, torch.tensor([[0.0, 0.11], [-0.2, 0.0]]))


def test_ppo_ptx_by_hand():
    outputs, batch = ppo_batch(torch.float64)
    shown = torch.tensor([[-1.0, -2.0, NAN], [-0.5, -0.5, -2.0]], dtype=torch.float64, requires_grad=True)
    batch.mask = {**batch.mask, "demonstration": torch.tensor([[1.0, 1, 0], [1, 1, 1]], dtype=torch.float64)}
    plain, known = PPOLoss()(outputs, batch)
    loss, metrics = PPOLoss(ptx_coef=0.1)({**outputs, "demonstration": shown}, batch)
    # nats of the demonstrations: 1 + 2; .5 + .5 + 2
    close(loss, -0.4 + 0.0925 + 0.3, -2.2 + 0.2 + 0.3)
    # 3 nats over 2 tokens, for the completion's 2 tokens; 3 over 3, for its 1: the trainer's mean is over 3 tokens
    close(metrics["ptx_loss"], 3.0, 1.0)
    assert_close({name: metrics[name] for name in known}, dict(known))
    loss.sum().backward()
    assert_close(shown.grad, torch.tensor([[-0.1, -0.1, 0], [-0.1, -0.1, -0.1]], dtype=torch.float64))
    assert_close(loss - plain, torch.full((2,), 0.3, dtype=torch.float64))


def test_ppo_reads_demonstrations_only_to_imitate_them():
    assert list(PPOLoss().reads) == ["completion"]
    assert list(PPOLoss(ptx_coef=0.1).reads) == ["completion", "demonstration"]  # the first divides the mean


def test_ppo_does_not_clip_what_makes_the_loss_worse():
    outputs, batch = ppo_batch()
    worse = replace(batch, prepared={**batch.prepared, "advantages": -batch.prepared["advantages"]})
    loss, metrics = PPOLoss(vf_coef=0.0)(outputs, worse)
    close(loss, 1.5 - 0.5, 2.2)
    close(metrics["clipfrac"], 0.0, 0.0)


def test_t7_the_first_epoch_is_on_policy():
    batch = rollouts()
    prepared = PPOLoss().prepare(batch, {})
    batch = replace(batch, values=batch.old_values, prepared=prepared)
    new = batch.old["completion"].clone().requires_grad_()
    loss, metrics = PPOLoss(vf_coef=0.0)({"completion": new}, batch)
    close(metrics["ratio"], 3.0, 1.0)  # 1 a token
    close(metrics["clipfrac"], 0.0, 0.0)
    close(metrics["approxkl"], 0.0, 0.0)
    loss.sum().backward()
    assert_close(new.grad, -prepared["advantages"])


def test_t7_without_kl_and_values_every_token_has_the_score_as_its_advantage():
    batch = rollouts(finished=(True, True))
    batch = replace(batch, old_values={"completion": torch.zeros(2, 3)})
    prepared = PPOLoss(kl_coef=0.0, lam=1.0, whiten_advantages=False).prepare(batch, {})
    assert_close(prepared["advantages"], torch.tensor([[2.0, 2.0, 2.0], [1.0, 0.0, 0.0]]))


def cases(dtype):
    sft = {"completion": torch.tensor([[-0.5, -1.0], [-2.0, 0.0]], dtype=dtype, requires_grad=True)}
    mask = {"completion": torch.tensor([[1.0, 1.0], [1.0, 0.0]])}
    rankings = ranking_batch(([0.3, 1.0], [1.0, 2.0]), ([0.1, 0.7, -1.0], [2.0, 1.0, 2.0]), dtype=dtype)
    return {
        "sft": (SFTLoss(), sft, Batch(mask=mask)),
        "dpo": (DPOLoss(label_smoothing=0.1), *pair_batch(dtype)),
        "kwise": (KWiseRewardLoss(), *rankings),
        "ppo": (PPOLoss(), *ppo_batch(dtype)),
    }


@pytest.mark.parametrize("name", ["sft", "dpo", "kwise", "ppo"])
def test_gradients_are_those_of_finite_differences(name):
    loss, outputs, batch = cases(torch.float64)[name]
    keys, tensors = zip(*outputs.items(), strict=True)
    tensors = tuple(tensor.detach().nan_to_num().requires_grad_() for tensor in tensors)
    assert torch.autograd.gradcheck(lambda *xs: loss(dict(zip(keys, xs, strict=True)), batch)[0], tensors)


@pytest.mark.parametrize("garbage", [NAN, math.inf, -math.inf, 1e30])
@pytest.mark.parametrize("name", ["sft", "dpo", "kwise", "ppo"])
def test_garbage_on_padding_changes_neither_loss_nor_gradient(name, garbage):
    def run(fill):
        def soiled(values):
            return {
                key: value.detach().masked_fill(exists[key] == 0, fill).requires_grad_()
                for key, value in values.items()
            }

        loss, outputs, batch = cases(torch.float32)[name]
        exists = {key: mask.amax(-1) if mask.ndim == 3 else mask for key, mask in batch.mask.items()}
        outputs, values = soiled(outputs), soiled(batch.values)
        fields = {field: soiled(getattr(batch, field)) for field in ("reference", "old", "old_values")}
        prepared = {key: value.masked_fill(exists["completion"] == 0, fill) for key, value in batch.prepared.items()}
        rows, metrics = loss(outputs, replace(batch, values=values, prepared=prepared, **fields))
        rows.sum().backward()
        return rows, dict(metrics), [leaf.grad for leaf in (*outputs.values(), *values.values())]

    clean, soiled = run(0.0), run(garbage)
    assert all(torch.isfinite(gradient).all() for gradient in clean[2])
    assert_close(soiled, clean)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: type(loss).__name__)
def test_losses_keep_the_contract(loss):
    assert set(loss.needs) <= {"reference", "old", "values"}
    assert loss.per in {"row", "token"}
    assert all(prompt == "prompt" for prompt, _ in loss.reads.values())
    assert isinstance(loss.columns, frozenset)
    assert hash(loss) == hash(replace(loss))
