"""The identities that hold between methods, losses and evaluators, T1 to T20: one short test each.

The numbers are those of the list that was agreed on before anything was built. Stricter tests of the same identities
stand beside the parts that they are about; this file shows that all of them hold, in one place.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from datasets import Dataset
from torch import Tensor
from torch.testing import assert_close

from alignarena.core.contract import Batch, Rows
from alignarena.core.feedback import UNSAFE_BELOW, Piecewise
from alignarena.core.seeds import generator
from alignarena.evaluators.exact.targets import best_of_n
from alignarena.evaluators.registry import find
from alignarena.evaluators.verdicts import expected_score, swap_averaged
from alignarena.methods.hir import HIR
from alignarena.methods.parts.advantages import gae, whiten
from alignarena.methods.parts.constitution import clamped
from alignarena.methods.parts.filters import own_quantiles, quantiles, where
from alignarena.methods.parts.hindsight import HIRLoss, relabelled
from alignarena.methods.parts.instructions import instructed
from alignarena.methods.parts.losses import DPOLoss, PairLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.regret_losses import CPLLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss, PairwiseRewardLoss
from alignarena.methods.parts.rows import best_of
from alignarena.paper_lab import PaperLab, paper_task
from alignarena.results.length_control import length_controlled_win_rate
from alignarena.results.strengths import bradley_terry

SIDES = ("chosen", "rejected")


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs(count: int = 8, at_reference: bool = False) -> tuple[dict[str, Tensor], Batch]:
    """Log-probs of pairs, and a reference model; or one that the policy has not left yet."""
    outputs = {side: random(count, 5, seed=i).requires_grad_() for i, side in enumerate(SIDES)}
    reference = {side: outputs[side].detach() if at_reference else random(count, 5, seed=9) for side in SIDES}
    return outputs, Batch(mask={side: torch.ones(count, 5).double() for side in SIDES}, reference=reference)


def swapped(sides: Any) -> Any:
    return {"chosen": sides["rejected"], "rejected": sides["chosen"]}


def gradients(loss: Any, outputs: dict[str, Tensor], batch: Batch) -> tuple[Tensor, ...]:
    rows, _ = loss(outputs, batch)
    return rows, *torch.autograd.grad(rows.sum(), tuple(outputs[side] for side in SIDES))


def soft(batch: Batch, probability: Any) -> Batch:
    count = len(batch.mask["chosen"])
    return Batch(batch.mask, reference=batch.reference, columns={"probability": torch.full((count,), probability)})


def scored(scores: list[list[float]]) -> Rows:
    return Dataset.from_list(
        [{"prompt_id": f"p{p}", "prompt": "x", "sample": i, "completion": f"{p} {i}", "score": score}
         for p, group in enumerate(scores) for i, score in enumerate(group)]
    )  # fmt: skip


def kept(rows: Rows) -> list[str]:
    return list(rows["completion"])


SCORES = [[0.1, 0.7, 0.3, 0.9], [0.2, 0.15, 0.8, 0.6], [0.5, 0.4, 0.55, 0.05]]


def test_t1_cpl_kl_is_dpo() -> None:
    outputs, batch = pairs()
    assert_close(gradients(CPLLoss(alpha=0.3), outputs, batch), gradients(DPOLoss(beta=0.3), outputs, batch))
    plain, free = CPLLoss(alpha=0.3, to_reference=False), DPOLoss(beta=0.3, reference_free=True)
    assert_close(gradients(plain, outputs, batch), gradients(free, outputs, batch))


def test_t2_k_wise_of_two_is_the_pair_loss_and_of_ties_nothing() -> None:
    better, worse = random(6), random(6, seed=1)
    outputs = {"completions": torch.stack([better, worse], 1).requires_grad_()}
    mask = {"completions": torch.ones(6, 2, 1)}
    ranks = torch.tensor([1.0, 2.0]).expand(6, 2)
    loss, _ = KWiseRewardLoss()(outputs, Batch(mask, columns={"ranks": ranks}))
    pair, _ = PairwiseRewardLoss()({"chosen": better, "rejected": worse}, Batch(mask))
    assert_close(loss, pair)
    tied, metrics = KWiseRewardLoss()(outputs, Batch(mask, columns={"ranks": torch.ones(6, 2)}))
    (gradient,) = torch.autograd.grad(tied.sum(), outputs["completions"])
    assert_close((tied, gradient), (torch.zeros(6).double(), torch.zeros(6, 2).double()))
    assert all(torch.isfinite(value).all() for value in metrics.values())


def test_t3_no_margin_is_bradley_terry_and_a_larger_one_costs_more() -> None:
    gap = random(6).requires_grad_()

    def at(margin: float) -> Tensor:
        columns = {"margin": torch.full((6,), margin)}
        return PairwiseRewardLoss(margin=True)({"chosen": gap, "rejected": 0 * gap}, Batch({}, columns=columns))[0]

    assert_close(at(0.0), PairwiseRewardLoss()({"chosen": gap, "rejected": 0 * gap}, Batch({}))[0])
    losses = [at(margin) for margin in (0.0, 1 / 3, 2 / 3, 1.0, 3.0)]
    assert all((larger > smaller).all() for smaller, larger in itertools.pairwise(losses))
    assert all((torch.autograd.grad(loss.sum(), gap)[0] < 0).all() for loss in losses)  # the gap always pays


@pytest.mark.parametrize("loss", [DPOLoss(0.3, soft=True), CPLLoss(0.3, bias=0.5, soft=True)])
def test_t4_soft_labels(loss: PairLoss) -> None:
    outputs, batch = pairs()
    flipped = Batch(swapped(batch.mask), reference=swapped(batch.reference))
    assert_close(loss(outputs, soft(batch, 0.7))[0], loss(swapped(outputs), soft(flipped, 1 - 0.7))[0])
    hard = type(loss)(**{**vars(loss), "soft": False})
    assert_close(loss(outputs, soft(batch, 1.0))[0], hard(outputs, batch)[0])
    assert_close(loss(outputs, soft(batch, 0.0))[0], hard(swapped(outputs), flipped)[0])
    smoothed = DPOLoss(0.3, label_smoothing=0.25)(outputs, batch)[0]
    assert_close(DPOLoss(0.3, soft=True)(outputs, soft(batch, 0.75))[0], smoothed)


def test_t5_dpo_starts_at_log_2() -> None:
    outputs, batch = pairs(at_reference=True)
    loss, chosen, rejected = gradients(DPOLoss(beta=0.3), outputs, batch)
    assert_close(loss, torch.full((8,), math.log(2)).double())
    assert_close((chosen, rejected), (torch.full((8, 5), -0.15).double(), torch.full((8, 5), 0.15).double()))


@pytest.mark.parametrize("loss", [DPOLoss(), CPLLoss(), CPLLoss(to_reference=False)])
def test_t6_an_identical_pair_teaches_nothing(loss: PairLoss) -> None:
    outputs, batch = pairs()
    same = dict.fromkeys(SIDES, outputs["chosen"])
    rows, _ = loss(same, Batch(batch.mask, reference=dict.fromkeys(SIDES, batch.reference["chosen"])))
    assert_close(rows, torch.full((8,), math.log(2)).double())
    assert_close(torch.autograd.grad(rows.sum(), outputs["chosen"])[0], torch.zeros(8, 5).double())


def rollouts(score: Tensor, **changes: Any) -> Batch:
    """Completions of 1, 2 and 3 tokens; the values are 0."""
    mask = {"completion": torch.tensor([[1.0, 0, 0], [1, 1, 0], [1, 1, 1]]).double()}
    zeros = {"completion": torch.zeros(3, 3).double()}
    given = {"finished": {"completion": torch.ones(3).bool()}, "reference": {"completion": random(3, 3)}}
    given |= {"old": {"completion": random(3, 3, seed=1)}, "values": zeros, "old_values": zeros}
    return Batch(mask, columns={"score": score}, **(given | changes))


def test_t7_ppo_starts_on_policy_and_pays_the_score_at_every_token() -> None:
    score = torch.tensor([2.0, -1.0, 0.5]).double()
    batch = rollouts(score)
    loss = PPOLoss(kl_coef=0.0, lam=1.0, whiten_advantages=False, vf_coef=0.0)
    batch.prepared = loss.prepare(batch, {})
    mask = batch.mask["completion"]
    assert_close(batch.prepared["advantages"], score[:, None] * mask)
    _, metrics = loss({"completion": batch.old["completion"].clone()}, batch)
    assert_close(metrics["ratio"], mask.sum(1))
    assert_close((metrics["clipfrac"], metrics["approxkl"]), (torch.zeros(3).double(),) * 2)


def test_t8_gae_without_discount_of_traces_returns_the_discounted_rewards() -> None:
    rewards, mask = random(4, 6), torch.ones(4, 6).double()
    _, returns = gae(rewards, random(4, 6, seed=1), mask, gamma=0.9, lam=1.0)
    weights = torch.tensor([[0.9 ** (s - t) if s >= t else 0.0 for t in range(6)] for s in range(6)]).double()
    assert_close(returns, rewards @ weights)


def test_t9_whitening_without_shift_keeps_the_mean() -> None:
    values, mask = 3 + 2 * random(4, 6), torch.ones(4, 6).double()
    whitened = whiten(values, mask, shift_mean=False)
    assert_close((whitened.mean(), whitened.std(correction=0)), (values.mean(), torch.tensor(1.0).double()))


def test_t10_a_constant_on_all_scores_leaves_the_reward_loss_and_what_filters_keep() -> None:
    outputs = {side: random(6, seed=i) for i, side in enumerate(SIDES)}
    shifted = {side: values + 5 for side, values in outputs.items()}
    assert_close(PairwiseRewardLoss()(shifted, Batch({})), PairwiseRewardLoss()(outputs, Batch({})))
    plain, moved = scored(SCORES), scored([[score + 5 for score in group] for group in SCORES])
    lab: Any = PaperLab()
    assert kept(best_of(plain, lab)) == kept(best_of(moved, lab))
    assert own_quantiles(plain, [0.0]).tolist() == own_quantiles(moved, [0.0]).tolist()
    assert quantiles(plain["score"], plain["score"]).tolist() == quantiles(moved["score"], moved["score"]).tolist()
    # on a scale that was fixed before, as ReST's is by its first samples, all scores now clear every threshold
    assert (quantiles(moved["score"], plain["score"]) == 1.0).all()


@pytest.mark.parametrize(("lam", "off"), [(1.0, 1e-9), (0.95, 0.5)])  # below 1 an early token sees less of it
def test_t10_a_constant_on_all_scores_leaves_whitened_advantages(lam: float, off: float) -> None:
    score, loss = torch.tensor([2.0, -1.0, 0.5]).double(), PPOLoss(kl_coef=0.1, lam=lam)
    first, second = (loss.prepare(rollouts(one), {})["advantages"] for one in (score, score + 5))
    assert_close(first, second, atol=off, rtol=0)


def test_t10_a_constant_on_all_scores_leaves_the_price_of_not_finishing() -> None:
    """Taken off the score; a score of -1 in its place, as in other implementations, would be another price."""
    score, loss = torch.tensor([2.0, -1.0, 0.5]).double(), PPOLoss(kl_coef=0.0, lam=1.0, whiten_advantages=False)
    finished = {"completion": torch.tensor([False, True, True])}
    paid = [loss.prepare(rollouts(one, finished=finished), {})["advantages"][:, 0] for one in (score, score + 5)]
    assert_close(paid[1] - paid[0], torch.full((3,), 5.0).double())
    assert_close(score[0] - paid[0][0], torch.tensor(loss.missing_eos_penalty).double())


def test_t11_a_monotone_transform_leaves_what_is_kept() -> None:
    plain, bent = scored(SCORES), scored([[math.exp(3 * score) for score in group] for group in SCORES])
    lab: Any = PaperLab()
    assert kept(best_of(plain, lab)) == kept(best_of(bent, lab))
    for threshold in (0.0, 0.5, 0.7, 0.9):
        for one in (lambda rows: own_quantiles(rows, [0.0]), lambda rows: quantiles(rows["score"], rows["score"])):
            assert kept(where(plain, one(plain) > threshold)) == kept(where(bent, one(bent) > threshold))


def test_t12_rest_of_the_best_of_each_prompt_is_rejection_sampling() -> None:
    rows, lab = scored(SCORES), PaperLab()
    assert kept(where(rows, own_quantiles(rows, [0.0]) > 0.99)) == kept(best_of(rows, lab))  # type: ignore[arg-type]


def test_t13_rest_without_a_threshold_is_behaviour_cloning() -> None:
    rows = scored(SCORES)
    assert kept(where(rows, quantiles(rows["score"], rows["score"]) > -math.inf)) == kept(rows)


def test_t14_swap_averaging_has_no_place() -> None:
    shown, other_way = np.array([0.9, 0.2, 0.5]), np.array([0.7, 0.3, 0.6])
    first, second = swap_averaged(shown, other_way), swap_averaged(other_way, shown)
    assert np.allclose(first + second, 1.0)
    always_first = np.array([0.99])
    assert np.allclose(swap_averaged(always_first, always_first), 0.5)


def test_t15_a_clamp_keeps_the_order_and_the_bounds() -> None:
    given = [0.001, 0.3, 0.45, 0.5, 0.55, 0.9, 0.999]
    asked = {"prompt_id": "p", "prompt": "x", "completions": ["a", "b"], "ranks": [1, 2], "margins": [0.0]}
    rows = Dataset.from_list([{**asked, "probability": one, "rationales": ["so", "thus"]} for one in given])
    found = clamped(rows, 0.6)["probability"][:]
    assert found == pytest.approx([0.4, 0.4, 0.45, 0.5, 0.55, 0.6, 0.6])
    assert found == sorted(found)


def test_t16_a_labeler_that_cannot_tell_scores_nothing() -> None:
    assert float(expected_score(np.full(10, 0.1))) == pytest.approx(0.0, abs=1e-12)


@dataclass(frozen=True)
class Column:
    """Reads a score off the rows."""

    name: str
    lineage: frozenset[str] = frozenset()

    def score(self, rows: Rows, lab: Any) -> list[float]:
        return list(rows[self.name])


def test_t17_llama_2s_reward_is_harmlessness_strictly_below_its_threshold() -> None:
    assert pytest.approx(-1.7346, abs=1e-4) == UNSAFE_BELOW
    just_below = math.nextafter(UNSAFE_BELOW, -math.inf)
    rows = [{"helpful": 9.0, "harmless": score} for score in (UNSAFE_BELOW, just_below, 3.0, -800.0)]
    asked = {"helpful": 9.0, "harmless": 800.0, "axis": "harmless", "kind": "red_team"}
    rows = Dataset.from_list([*({"axis": "helpful", "kind": "ordinary", **row} for row in rows), asked])
    found = Piecewise(Column("helpful"), Column("harmless")).score(rows, None)
    # raw scores come back as they are: logit(sigmoid(s)) is s, but where the sigmoid has saturated
    assert found == [9.0, just_below, 9.0, -800.0, 800.0]
    scores = random(50).double()
    assert_close(torch.logit(torch.sigmoid(scores)), scores)


def wins(ours: list[float], theirs: list[float]) -> float:
    """The win rate of one list of scores against another, by the evaluator."""

    def rows(scores: list[float]) -> Rows:
        return Dataset.from_list([{"prompt_id": str(i), "sample": 0, "score": one} for i, one in enumerate(scores)])

    lab = SimpleNamespace(score=lambda given, scorer: given)
    evidence: Any = SimpleNamespace(lab=lab, rows=rows(ours), baseline=rows(theirs), judge=None)
    measured = [measures["win"] or 0.0 for _, measures in find("win_rate").measure(evidence)]
    return sum(measured) / len(measured)


def test_t18_win_rates_are_antisymmetric_and_a_symmetric_table_rates_all_equal() -> None:
    assert bradley_terry(np.array([[0.0, 3.0, 5.0], [3.0, 0.0, 2.0], [5.0, 2.0, 0.0]])) == pytest.approx([0.0] * 3)
    a, b = [0.1, 0.5, 0.5, 0.9, 0.2], [0.3, 0.5, 0.4, 0.9, 0.9]
    assert (wins(a, b), wins(b, a)) == (0.4, 0.6)
    assert wins(a, a) == 0.5
    lengths = generator(0, "lengths").integers(5, 60, size=(2, 400))
    won = generator(0, "wins").integers(0, 3, size=400) / 2
    rate, back = length_controlled_win_rate(won, *lengths), length_controlled_win_rate(1 - won, *lengths[::-1])
    assert rate is not None and back is not None and rate + back == pytest.approx(1.0, abs=1e-4)
    even = length_controlled_win_rate(np.full(400, 0.5), *lengths)  # a policy against itself, drawn twice
    assert even == pytest.approx(0.5, abs=1e-6)


# -- T19: three tokens, at most two of them -------------------------------------------------------------------------

LEAVES = ((2,), (0, 2), (1, 2), (0, 0), (0, 1), (1, 0), (1, 1))  # token 2 ends; two other tokens are cut
MASK = torch.tensor([[1.0, float(len(leaf) > 1)] for leaf in LEAVES]).double()
BETA = 0.5
REWARD = random(len(LEAVES), seed=3)
SFT = random(3, 3, seed=4)  # logits of the next token at the start, after token 0 and after token 1


def logps(logits: Tensor) -> Tensor:
    """Log-probs of the tokens of every completion, (7, 2)."""
    table = torch.log_softmax(logits, -1)
    rows = [[table[0, leaf[0]], table[1 + leaf[0], leaf[1]] if len(leaf) > 1 else 0 * table[0, 0]] for leaf in LEAVES]
    return torch.stack([torch.stack(row) for row in rows])


def optimum() -> Tensor:
    return torch.softmax(logps(SFT).sum(1) + REWARD / BETA, 0)


def test_t19_dpo_on_exact_preferences_ends_at_the_closed_form() -> None:
    first, second = map(list, zip(*itertools.combinations(range(len(LEAVES)), 2), strict=True))
    reference = logps(SFT)
    batch = Batch(
        {"chosen": MASK[first], "rejected": MASK[second]},
        reference={"chosen": reference[first], "rejected": reference[second]},
        columns={"probability": torch.sigmoid(REWARD[first] - REWARD[second])},
    )
    logits = SFT.clone().requires_grad_()
    solver = torch.optim.LBFGS([logits], max_iter=200, tolerance_grad=1e-10, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        solver.zero_grad()
        now = logps(logits)
        loss = DPOLoss(BETA, soft=True)({"chosen": now[first], "rejected": now[second]}, batch)[0].mean()
        loss.backward()
        return loss

    solver.step(closure)  # type: ignore[no-untyped-call]
    assert_close(logps(logits).sum(1).exp().detach(), optimum(), atol=1e-4, rtol=0)


def test_t19_ppo_on_all_completions_ends_at_the_closed_form() -> None:
    loss = PPOLoss(kl_coef=BETA, lam=1.0, whiten_advantages=False, missing_eos_penalty=0.0, vf_coef=0.0)
    logits = SFT.clone().requires_grad_()
    optimizer = torch.optim.Adam([logits], lr=0.05)
    zeros = {"completion": torch.zeros_like(MASK)}
    finished = torch.tensor([leaf[-1] == 2 for leaf in LEAVES])
    for _ in range(500):
        old = logps(logits).detach()
        batch = Batch(
            {"completion": MASK}, finished={"completion": finished}, reference={"completion": logps(SFT)},
            old={"completion": old}, values=zeros, old_values=zeros, columns={"score": REWARD},
        )  # fmt: skip
        batch.prepared = loss.prepare(batch, {})
        rows, _ = loss({"completion": logps(logits)}, batch)
        optimizer.zero_grad()
        (old.sum(1).exp() * rows).sum().backward()  # the mean over endlessly many rollouts
        optimizer.step()
    assert_close(logps(logits).sum(1).exp().detach(), optimum(), atol=1e-3, rtol=0)


def test_t19_best_of_n_by_counting_draws() -> None:
    reference = logps(SFT).sum(1).exp().numpy()
    score = np.round(REWARD.numpy())  # with ties
    wanted = np.zeros(len(LEAVES))
    for draws in itertools.product(range(len(LEAVES)), repeat=3):
        best = [leaf for leaf in draws if score[leaf] == max(score[list(draws)])]
        for leaf in best:
            wanted[leaf] += np.prod(reference[list(draws)]) / len(best)
    found = best_of_n(np.log(reference)[None], score[None], 3)[0]
    assert np.exp(found) == pytest.approx(wanted, abs=1e-12)


# -- T20 ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("smoothing", "least"), [(0.2, 0.8), (0.0, 1.0)])
def test_t20_hirs_contrast_is_least_where_smoothing_leaves_the_own_instruction(smoothing: float, least: float) -> None:
    q = torch.linspace(0.005, 0.999, 400).double()
    outputs = {"grade_0": torch.log(1 - q)[:, None], "grade_1": torch.log(q)[:, None]}
    columns = {"grade": torch.ones(400), "sampled_logp": torch.zeros(400)}
    batch = Batch({key: torch.ones(400, 1) for key in outputs}, columns=columns)
    loss = HIRLoss(grades=2, label_smoothing=smoothing)
    batch.prepared = loss.prepare(batch, {})
    contrast = loss(outputs, batch)[1]["contrast"]
    assert float(q[contrast.argmin()]) == pytest.approx(least, abs=0.004)


@dataclass
class Noting(PaperLab):
    """Notes the prompts that the language model itself is given."""

    def sample(self, policy: Any, rows: Rows, n: int = 1, **more: Any) -> Rows:
        if hasattr(policy, "words"):
            self.log.extend(f"asked {prompt}" for prompt in rows["prompt"])
        return super().sample(policy, rows, n, **more)


def test_t20_hir_trains_and_answers_under_one_instruction() -> None:
    task, lab = paper_task(), Noting()
    policy = HIR(rounds=1).align(task, lab)  # type: ignore[arg-type]
    trained = [line for line in lab.log if line.startswith("asked") and task.grades[-1] in line]
    lab.log.clear()
    lab.sample(policy, task.prompts, 1, stream="evaluation")
    answered = [line for line in lab.log if line.startswith("asked")]
    assert trained == answered == [f"asked {prompt}" for prompt in instructed(task.prompts, task.grades[-1])["prompt"]]
    drawn = task.prompts.add_column("logps", [[0.0]] * len(task.prompts)).add_column("grade", [0] * len(task.prompts))
    told = relabelled(drawn, task.grades)["prompt_2"]
    assert [f"asked {prompt}" for prompt in told] == answered
