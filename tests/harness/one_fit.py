"""A program for tests of processes: the toy SFT and PPO on the tiny model, once told to go; prints what it was charged.

Usage: one_fit.py MODEL_FOLDER CACHE_FOLDER READY_FILE GO_FILE
"""

import json
import math
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_model
import toy_task

from alignarena.core.contract import Schedule
from alignarena.harness import checkpoint
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.methods.parts.experience import Rollouts, ScoredBy
from alignarena.methods.parts.policy_gradient import PPOLoss


def work(lab: HarnessLab) -> str:
    """Train; return the digest of the policy."""
    experience = Rollouts(toy_task.prompts(), ScoredBy(toy_task.Favours()), phases=6, prompts_per_phase=8, n=2)
    return lab.fit(toy_task.sft(lab), experience, PPOLoss(), Schedule(learning_rate=1e-2, batch_size=8)).digest


def main(model: str, cache: str, ready: str, go: str) -> None:
    """Load, say so, wait, train."""
    checkpoint.INTERVAL, checkpoint.SHARE = 0.0, math.inf
    backbone = Backbone(tiny_model.config(Path(model)))
    Path(ready).touch()
    while not Path(go).exists():
        time.sleep(0.005)
    lab = HarnessLab(backbone, Cache(Path(cache)), seed=0)
    print(json.dumps({"digest": work(lab), "hits": [stage["hit"] for stage in lab.account.stages],
                      "charged": lab.account.charged.to_dict()}))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
