"""Rejection sampling and PPO in either order (the order of Llama 2, and its reverse; arXiv:2307.09288).

Differs from the paper: one version of each stage, the first one not iterated; one reward model, fitted to preferences
on SFT samples and never refreshed; the paper reports the first order only.
"""

from __future__ import annotations

from alignarena.core.registry import method
from alignarena.methods.parts.composition import Chain
from alignarena.methods.ppo import PPO
from alignarena.methods.rejection_sampling import RejectionSampling

_SAMPLING, _REINFORCING = RejectionSampling(rounds=1), PPO(updates=5)  # half of what each does alone


@method("rs_then_ppo", paper="arXiv:2307.09288", family="online")
def rs_then_ppo() -> Chain:
    """Rejection sampling, then PPO from its policy (Touvron et al., 2023: the last stages of Llama 2-Chat)."""
    return Chain(_SAMPLING, _REINFORCING)


@method("ppo_then_rs", paper="arXiv:2307.09288", family="online")
def ppo_then_rs() -> Chain:
    """PPO, then rejection sampling from its policy: the control of the order of Llama 2's stages."""
    return Chain(_REINFORCING, _SAMPLING)
