"""Filtered behaviour cloning: sample once, imitate the best share of all samples; a control (Gulcehre et al., 2023).

Differs from the paper: a control rather than a method of it: ReST with one grow and one improve step (to the paper,
what RAFT does, arXiv:2304.06767), on samples of the policy alone. It keeps an eighth: as many rows as rejection
sampling keeps of 8, chosen over all prompts instead of prompt by prompt, so that the two differ in that only.
"""

from __future__ import annotations

from alignarena.core.contract import Schedule
from alignarena.core.registry import method
from alignarena.methods.rest import ReST


@method("filtered_bc", paper="arXiv:2308.08998", family="online")
def filtered_bc() -> ReST:
    """Filtered behaviour cloning: sample once, imitate the best eighth of all samples (a control of ReST and HIR)."""
    schedule = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.05)
    return ReST(grow_steps=1, thresholds=(0.875,), demonstrations=False, schedule=schedule)
