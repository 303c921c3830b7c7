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
    if method.label_smoothing:
        return None  # the log-odds it learns are bounded: no closed form
    return tilted(prompts.log_reference, prompts.preferred, method.beta)


@own_target.register
def _ipo(method: IPO, prompts: Prompts) -> Floats:
    return targets.ipo(prompts.log_reference, prompts.preferred, method.beta, prompts.log_data)


@own_target.register
def _cpl(method: CPL, prompts: Prompts) -> Floats | None:
    if method.gamma != 1 or method.bc_coef:
        return None
    if method.bias == 1:
        if method.to_reference:
            return tilted(prompts.log_reference, prompts.preferred, method.alpha)
        return targets.cpl(prompts.preferred, method.alpha)
    data, settings = prompts.log_data, (method.alpha, method.bias)
    return targets.cpl_biased(prompts.log_reference, prompts.preferred, *settings, data, method.to_reference)


@own_target.register
def _ppo(method: PPO, prompts: Prompts) -> Floats:
    unfinished = ~prompts.world.leaves.finished
    reward = prompts.rewarded - method.loss.missing_eos_penalty * unfinished
    return tilted(prompts.log_reference, reward, method.loss.kl_coef)
