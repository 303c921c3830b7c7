"""The base model as given, before any training: the floor of every table.

Differs from the paper: there is none. The quickstart's base is an instruct model, already aligned by its makers.
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena.core.contract import Lab, Policy, Task
from alignarena.core.registry import method


@method("base", paper="baseline", family="baseline")
@dataclass(frozen=True)
class Base:
    """Return the task's base model."""

    def align(self, task: Task, lab: Lab) -> Policy:
        """Change nothing."""
        return task.base
