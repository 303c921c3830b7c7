"""What each method converges to with exact and unlimited feedback; the derivations are with the formulas."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from alignarena.benchmarks.exact.laboratory import Prompts, logps, own_target
from alignarena.benchmarks.exact.text import GOAL, GRADES
from alignarena.evaluators.exact import llama2_target, offline_targets, targets
from alignarena.evaluators.exact.optimum import tilted
from alignarena.evaluators.exact.ptx_target import ppo_ptx
from alignarena.evaluators.exact.reviser import kernel
from alignarena.evaluators.exact.world import Floats
from alignarena.methods.best_of_n import BestOfN
from alignarena.methods.constitutional_ai import ConstitutionalAI
from alignarena.methods.cpl import CPL
from alignarena.methods.d_rlaif import DirectRLAIF
from alignarena.methods.dpo import DPO
from alignarena.methods.hir import HIR, InstructedSFT
from alignarena.methods.ipo import IPO
from alignarena.methods.kto import KTO
from alignarena.methods.llama2 import Llama2
from alignarena.methods.online_dpo import OnlineDPO
from alignarena.methods.orpo import ORPO
from alignarena.methods.parts.composition import Chain
from alignarena.methods.parts.instructions import Instructed
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reinforce import ReinforceLoss
from alignarena.methods.ppo import PPO
from alignarena.methods.preferred_ft import PreferredFT
from alignarena.methods.prompted import Prompted
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.rest import ReST
from alignarena.methods.rlaif import RLAIF
from alignarena.methods.rloo import RLOO
from alignarena.methods.sft import SFT
from alignarena.methods.simpo import SimPO
from alignarena.methods.trl import TRLDPO, TRLRLOO


@own_target.register
def _sft(method: SFT, prompts: Prompts) -> Floats:
    return prompts.log_reference


@own_target.register
def _prompted(method: Prompted, prompts: Prompts) -> Floats:
    return logps(Instructed(prompts.sft, GOAL), prompts)


@own_target.register
def _instructed(method: InstructedSFT, prompts: Prompts) -> Floats:
    return logps(Instructed(prompts.sft, GRADES[-1]), prompts)


@own_target.register
def _hir(method: HIR, prompts: Prompts) -> Floats | None:
    if method.use_checker or method.entropy_coef:
        return None
    return _hir_within_prompts(method, prompts) if method.grade_within == "prompt" else _hir_of_rounds(method, prompts)


def _hir_within_prompts(method: HIR, prompts: Prompts) -> Floats | None:
    if method.alpha or (method.replay and method.rounds > 1):
        return None  # a grade depends on what else was drawn: nothing is known of its contrast, or of mixed draws
    start, finished = logps(Instructed(prompts.sft, GRADES[-1]), prompts), prompts.world.leaves.finished
    return targets.hir_within_prompts(start, prompts.gold, len(GRADES), method.n, method.rounds, finished)


def _hir_of_rounds(method: HIR, prompts: Prompts) -> Floats | None:
    if method.alpha and method.label_smoothing:
        return None
    # grades are shares of what was sampled, on trained prompts, whichever prompts are asked for
    trained = replace(prompts, combinations=prompts.world.trained, split="trained")
    start = np.concatenate([logps(Instructed(prompts.sft, GRADES[-1]), one) for one in (trained, prompts)])
    score = np.where(prompts.world.leaves.finished, np.concatenate([trained.gold, prompts.gold]), -np.inf)
    count = len(trained.combinations)
    found = targets.hir(start, score, len(GRADES), method.rounds, method.replay, np.arange(len(start)) < count)
    return found[count:]


@own_target.register
def _best_of_n(method: BestOfN, prompts: Prompts) -> Floats:
    return targets.best_of_n(prompts.log_reference, prompts.rewarded, method.n)


@own_target.register
def _rejection_sampling(method: RejectionSampling, prompts: Prompts) -> Floats:
    finished = prompts.world.leaves.finished
    return targets.rejection_sampling(prompts.log_reference, prompts.rewarded, method.n, method.rounds, finished)


@own_target.register
def _rest(method: ReST, prompts: Prompts) -> Floats | None:
    if method.per_prompt or method.demonstrations:
        return None  # few samples of a prompt, and a set of demonstrations, are no distribution
    finished = prompts.world.leaves.finished
    trained = replace(prompts, combinations=prompts.world.trained, split="trained")  # whose samples set the scale
    sampled = np.where(finished, trained.gold, -np.inf)
    reward = np.where(finished, targets.shares_below(prompts.gold, trained.log_reference, sampled), -np.inf)
    return targets.rest_filter(prompts.log_reference, reward, method.thresholds, method.grow_steps)


@own_target.register
def _chain(method: Chain, prompts: Prompts) -> Floats | None:
    start = own_target(method.first, prompts)
    if start is None or isinstance(method.second, ReST | HIR | InstructedSFT | Prompted):
        return None  # these ask the start on other prompts too, or under an instruction
    return own_target(method.second, replace(prompts, start=start))


@own_target.register
def _llama2(method: Llama2, prompts: Prompts) -> Floats | None:
    world, loss = prompts.world, method.loss
    if world.feedback_kind != "whole" or not prompts.unlimited or loss.gamma != 1 or loss.target_kl is not None:
        return None  # comparisons leave a prompt's zero open, so where a learnt score is unsafe is not known
    # scores are whitened over what is sampled of trained prompts, whichever prompts are asked for
    both = [replace(prompts, combinations=world.trained, split="trained"), prompts]
    score = np.concatenate([llama2_target.piecewise(one.gold_on("helpful"), one.gold_on("harmless")) for one in both])
    start, finished = np.concatenate([one.log_sft for one in both]), world.leaves.finished
    last = llama2_target.best_of_versions(start, score, method.n, method.versions, finished)
    penalty, asked = np.where(finished, 0.0, loss.missing_eos_penalty), len(world.trained)
    return llama2_target.whitened(last, score, penalty, loss.kl_coef, asked)[asked:]


@own_target.register
def _preferred_ft(method: PreferredFT, prompts: Prompts) -> Floats | None:
    if prompts.world.feedback_kind != "whole" or prompts.certain:
        return None
    return targets.preferred(prompts.preferred, prompts.log_data)


@own_target.register
def _dpo(method: DPO, prompts: Prompts) -> Floats | None:
    if method.label_smoothing or prompts.certain:
        return None  # with smoothing, the log-odds it learns are bounded: no closed form
    if not method.reference_free:
        return _log_ratio(prompts, method.beta)
    return targets.cpl(prompts.preferred, method.beta) if prompts.world.feedback_kind == "whole" else None


@own_target.register
def _trl_dpo(method: TRLDPO, prompts: Prompts) -> Floats | None:
    return None if method.label_smoothing or prompts.certain else _log_ratio(prompts, method.beta)


def _log_ratio(prompts: Prompts, strength: float) -> Floats | None:
    """Return what scoring by ``strength`` times the log-ratio converges to.

    Regret on segments is explained by the optimum's own log-ratios, at its own strength; partial returns by none.
    """
    world = prompts.world
    if world.feedback_kind == "whole" or (world.feedback_kind == "regret" and strength == world.beta):
        return tilted(prompts.log_reference, prompts.preferred, strength)
    return None


@own_target.register
def _ipo(method: IPO, prompts: Prompts) -> Floats | None:
    if prompts.world.feedback_kind != "whole" or prompts.certain:
        return None
    return targets.ipo(prompts.log_reference, prompts.preferred, method.beta, prompts.log_data)


@own_target.register
def _cpl(method: CPL, prompts: Prompts) -> Floats | None:
    if method.gamma != 1 or method.bc_coef or prompts.certain:
        return None
    if method.bias == 1 and method.to_reference:
        return _log_ratio(prompts, method.alpha)
    if prompts.world.feedback_kind != "whole":
        return None
    if method.bias == 1:
        return targets.cpl(prompts.preferred, method.alpha)
    data, settings = prompts.log_data, (method.alpha, method.bias)
    return targets.cpl_biased(prompts.log_reference, prompts.preferred, *settings, data, method.to_reference)


@own_target.register
def _ppo(method: PPO, prompts: Prompts) -> Floats | None:
    loss = method.loss
    if loss.gamma != 1 or loss.target_kl is not None:
        return None
    if not loss.ptx_coef:
        return _rewarded(prompts, loss.missing_eos_penalty, loss.kl_coef)
    if loss.whiten_advantages or prompts.world.feedback_kind != "whole":
        return None  # whitened, advantages weigh against demonstrations by their spread, which changes along a run
    reward = prompts.rewarded - loss.missing_eos_penalty * ~prompts.world.leaves.finished
    return ppo_ptx(prompts.log_reference, reward, loss.kl_coef, loss.ptx_coef, prompts.log_demonstrations)


@own_target.register
def _rloo(method: RLOO, prompts: Prompts) -> Floats | None:
    return _rewarded(prompts, method.loss.missing_eos_penalty, method.loss.kl_coef)


@own_target.register
def _trl_rloo(method: TRLRLOO, prompts: Prompts) -> Floats | None:
    return _rewarded(prompts, method.missing_eos_penalty, method.kl_coef)


@own_target.register
def _online_dpo(method: OnlineDPO, prompts: Prompts) -> Floats | None:
    """Return what DPO's loss learns of soft labels, which pairs of any policy agree on, be it the one being trained.

    Of hard labels without noise no log-ratio is large enough: the policy ends at the best completion alone.
    """
    return _rewarded(prompts, method.missing_eos_penalty, method.beta) if method.soft else None


def _rewarded(prompts: Prompts, missing_eos_penalty: float, strength: float) -> Floats | None:
    """Return the best policy for the reward that samples earn, where completions are scored whole."""
    if prompts.world.feedback_kind != "whole":
        return None
    unfinished = ~prompts.world.leaves.finished
    return tilted(prompts.log_reference, prompts.rewarded - missing_eos_penalty * unfinished, strength)


@own_target.register
def _rlaif(method: RLAIF, prompts: Prompts) -> Floats | None:
    if not method.soft:
        return None  # a labeler does not err at random: of which is better alone, a reward model learns no scale
    opinion = prompts.opinion
    return _labelled(prompts, opinion if prompts.unlimited else prompts.standardised(opinion), method.loss)


@own_target.register
def _d_rlaif(method: DirectRLAIF, prompts: Prompts) -> Floats:
    return _labelled(prompts, prompts.opinion, method.loss)


@own_target.register
def _constitutional_ai(method: ConstitutionalAI, prompts: Prompts) -> Floats | None:
    if method.loss.gamma != 1 or method.loss.target_kl is not None or method.loss.ptx_coef:
        return None
    ended = np.where(prompts.world.leaves.finished, prompts.log_reference, -np.inf)  # what is cut is not revised
    kernels = [kernel(prompts.world, combination) for combination in prompts.combinations]
    revised = targets.revision(ended, kernels, [1 / method.revisions] * method.revisions)
    opinion = prompts.opinion if prompts.unlimited else prompts.standardised(prompts.opinion)
    return _labelled(replace(prompts, start=revised), opinion, method.loss)


def _labelled(prompts: Prompts, opinion: Floats, loss: ReinforceLoss | PPOLoss) -> Floats:
    """Return the best policy for the labeler's opinion; REINFORCE's KL takes its weight from the score's."""
    weight = 1 - loss.kl_coef if isinstance(loss, ReinforceLoss) else 1.0
    reward = opinion - loss.missing_eos_penalty * ~prompts.world.leaves.finished
    return tilted(prompts.log_reference, weight * reward, loss.kl_coef)


@own_target.register
def _kto(method: KTO, prompts: Prompts) -> Floats | None:
    # unequal weights may leave a prompt without a desirable completion
    even = method.desirable_weight == method.undesirable_weight
    if prompts.world.feedback_kind != "whole" or prompts.certain or method.beta >= 1 or not even:
        return None
    return offline_targets.kto(prompts.log_reference, prompts.preferred, method.beta, 1.0, 1.0, prompts.log_data)


@own_target.register
def _simpo(method: SimPO, prompts: Prompts) -> Floats | None:
    if prompts.world.feedback_kind != "whole" or prompts.certain:
        return None
    settings, lengths = (method.beta, method.gamma), prompts.world.leaves.lengths
    return offline_targets.simpo(prompts.preferred, *settings, prompts.log_data, lengths)


@own_target.register
def _orpo(method: ORPO, prompts: Prompts) -> Floats | None:
    if prompts.world.feedback_kind != "whole" or prompts.certain:
        return None
    lengths, data = prompts.world.leaves.lengths, prompts.log_data
    return offline_targets.orpo(prompts.preferred, method.odds_coef, data, lengths)
