"""Supervised fine-tuning on the demonstrations: the start of every other method, and their reference model.

Differs from the paper: InstructGPT trains 16 epochs and picks the checkpoint by reward; here the suite's `sft` schedule
is used as it ends, so that no method's start was chosen by a reward.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.registry import method


@method("sft", paper="arXiv:2203.02155", family="baseline")
@dataclass(frozen=True)
class SFT:
    """Return the policy that the suite fine-tuned for all methods."""

    def align(self, task: Task, lab: Lab) -> Policy:
        """Add nothing to the shared start."""
        return task.policy
