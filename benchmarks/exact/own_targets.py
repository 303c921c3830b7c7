"""What each method converges to with exact and unlimited feedback; the derivations are with the formulas."""

from __future__ import annotations

from alignarena.benchmarks.exact.laboratory import Prompts, own_target
from alignarena.evaluators.exact import targets
from alignarena.evaluators.exact.optimum import tilted
from alignarena.evaluators.exact.world import Floats
from alignarena.methods.best_of_n import BestOfN
from alignarena.methods.cpl import CPL
from alignarena.methods.dpo import DPO
from alignarena.methods.ipo import IPO
from alignarena.methods.ppo import PPO
from alignarena.methods.rejection_sampling import RejectionSampling
from alignarena.methods.sft import SFT


@own_target.register
def _sft(method: SFT, prompts: Prompts) -> Floats:
    return prompts.log_reference


@own_target.register
def _best_of_n(method: BestOfN, prompts: Prompts) -> Floats:
    return targets.best_of_n(prompts.log_reference, prompts.rewarded, method.n)


@own_target.register
def _rejection_sampling(method: RejectionSampling, prompts: Prompts) -> Floats:
    finished = prompts.world.leaves.finished
    return targets.rejection_sampling(prompts.log_reference, prompts.rewarded, method.n, method.rounds, finished)


@own_target.register
def _dpo(method: DPO, prompts: Prompts) -> Floats | None:
    if method.label_smoothing or prompts.certain:
        return None  # with smoothing, the log-odds it learns are bounded: no closed form
    return _log_ratio(prompts, method.beta)


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
    if method.loss.gamma != 1 or method.loss.target_kl is not None or prompts.world.feedback_kind != "whole":
        return None
    unfinished = ~prompts.world.leaves.finished
    reward = prompts.rewarded - method.loss.missing_eos_penalty * unfinished
    return tilted(prompts.log_reference, reward, method.loss.kl_coef)
