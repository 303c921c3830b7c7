"""A program for two processes: every verb that computes, on the tiny model; the first process writes what came out.

Usage: two_processes.py MODEL_FOLDER CACHE_FOLDER RESULT_FOLDER
"""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))
import tiny_model
import toy_task
from safetensors.torch import save_file

from alignarena.core.contract import Schedule
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.methods.parts.experience import Fixed, Rollouts, ScoredBy
from alignarena.methods.parts.losses import DPOLoss, SFTLoss
from alignarena.methods.parts.policy_gradient import PPOLoss
from alignarena.methods.parts.reward_losses import KWiseRewardLoss
from alignarena.methods.parts.rows import pairs

SCHEDULE = Schedule(learning_rate=1e-2, batch_size=5, num_train_epochs=2, adam_epsilon=1e-3)  # 5: shares of 3 and 2


def results(backbone: Backbone, cache: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return plain results and trained tensors."""
    lab = HarnessLab(backbone, Cache(cache), seed=0)
    base, prompts = toy_task.base(lab), toy_task.prompts(7)  # 7: shares of 4 and 3
    sampled = lab.sample(base, prompts, 3, stream="a")
    model = lab.fit_reward_model(base, toy_task.preferences(), KWiseRewardLoss(), SCHEDULE)
    policies = {
        "sft": lab.fit(base, Fixed(toy_task.demonstrations()), SFTLoss(), SCHEDULE),
        "dpo": lab.fit(base, Fixed(pairs(toy_task.preferences())), DPOLoss(), SCHEDULE),
        "ppo": lab.fit(
            base, Rollouts(prompts, ScoredBy(model), 2, 7, 2, value_start=model), PPOLoss(), SCHEDULE
        ),
        "with validation": lab.fit(
            base, Fixed(pairs(toy_task.preferences())), DPOLoss(), replace(SCHEDULE, validation_share=0.4)
        ),
        "one prompt": lab.fit(base, Fixed(toy_task.demonstrations().select([0])), SFTLoss(), SCHEDULE),
    }
    plain = {
        "processes": backbone.accelerator.num_processes,
        "completions": sampled.to_dict()["completion_ids"],
        "prompts": sampled.to_dict()["prompt_id"],
        "logps": lab.logps(policies["sft"], sampled).to_dict()["logps"],
        "scores": lab.score(sampled, model).to_dict()["score"],
        "one row": lab.score(sampled.select([4]), model).to_dict()["score"],
        "ledger": {k: v for k, v in lab.account.charged.to_dict().items() if k not in ("seconds", "peak_memory_mib")},
    }
    tensors = {
        f"{name} {key}": value.clone()
        for name, policy in {**policies, "reward model": model}.items()
        for key, value in backbone.weights.state(policy.load(backbone)).items()  # type: ignore[attr-defined]
    }
    return plain, tensors


def main(model: str, cache: str, out: str) -> None:
    """Compute; the first process writes."""
    backbone = Backbone(tiny_model.config(Path(model)))
    plain, tensors = results(backbone, Path(cache))
    if backbone.accelerator.is_main_process:
        save_file(tensors, Path(out) / "tensors.safetensors")
        (Path(out) / "plain.json").write_text(json.dumps(plain))
    backbone.accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
