"""Contrastive Preference Learning (Hejna et al., 2023; arXiv:2310.13639), not CPO.

Differs from the paper: a segment is a completion, unless rows bring spans; the policy starts from SFT on demonstrations
instead of behaviour cloning on the segments; the default scores log-ratios to the SFT policy (the authors' CPL-KL), as
plain log-probs summed over a text start saturated; AdamW on a LoRA adapter. The authors' code never discounts: gamma 1.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, PreferenceStream, Schedule, Task
from alignarena.core.registry import method
from alignarena.methods.parts.experience import Fixed, pairs_of
from alignarena.methods.parts.regret_losses import CPLLoss, KWiseCPLLoss
from alignarena.methods.parts.rows import untied, with_repeats_named


@method("cpl", paper="arXiv:2310.13639", family="offline")
@dataclass(frozen=True)
class CPL:
    """Preferences as regret: the policy is its own advantage function, so no reward is ever learnt."""

    alpha: float = 0.1  # temperature: larger keeps the policy closer to the reference model
    bias: float = 0.75  # the paper's lambda; 1 is no bias, and with the reference model that is DPO
    gamma: float = 1.0  # discount a token
    to_reference: bool = True  # False: the paper's plain form, without a reference model
    bc_coef: float = 0.0  # weight of behaviour cloning on the chosen segment
    k_wise: bool = False  # a ranking is one row, the mean over its pairs, instead of a row a pair
    label_ties: bool = False  # a tie is a pair labelled one half, as the authors do; False leaves it out
    schedule: Schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Contrast the two segments of every preference; a stream without end has pairs only, and no ties."""
        preferences, scores = task.preferences["overall"], (self.alpha, self.bias, self.gamma, self.to_reference)
        if self.k_wise and not isinstance(preferences, PreferenceStream):
            ranked = Fixed(with_repeats_named(preferences if self.label_ties else untied(preferences)))
            return lab.fit(task.policy, ranked, KWiseCPLLoss(*scores, self.bc_coef, self.label_ties), self.schedule)
        pairs = pairs_of(preferences, self.label_ties)
        return lab.fit(task.policy, pairs, CPLLoss(*scores, self.bc_coef, soft=pairs.soft), self.schedule)


@method("cpl_kl", paper="arXiv:2310.13639", family="offline")
def cpl_kl() -> CPL:
    """CPL on log-ratios without bias (Hejna et al., 2023): DPO by another road, and a check that both are right."""
    return CPL(bias=1.0)


@method("cpl_plain", paper="arXiv:2310.13639", family="offline")
def cpl_plain() -> CPL:
    """CPL as the paper states it first (Hejna et al., 2023): no reference model and no bias."""
    return CPL(bias=1.0, to_reference=False)
