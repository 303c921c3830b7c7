"""TRL's own trainers as methods: the same pairs, prompts, reward model and start as ours, trained by TRL 1.16.

Differs from the paper: whatever TRL differs in; `docs/methods/trl.md` lists it. The optimiser, its schedule, the rows
and their tokens are ours, so that a table compares implementations.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from alignarena.core.contract import Lab, Policy, Schedule, Task
from alignarena.core.errors import BadInput
from alignarena.core.registry import method
from alignarena.methods.parts.reward_modelling import RewardModelling
from alignarena.methods.parts.trl import OnlineTrainer, PairTrainer, installed, labelled_pairs, rollout_prompts

_OFFLINE = Schedule(learning_rate=1e-4, num_train_epochs=2, lr_scheduler_type="linear", warmup_ratio=0.1)
_ONLINE = Schedule(learning_rate=2e-4, batch_size=12, lr_scheduler_type="linear", adam_epsilon=1e-5)


@method("trl_dpo", paper="arXiv:2305.18290", family="trl")
@dataclass(frozen=True)
class TRLDPO:
    """TRL's DPOTrainer."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    label_smoothing: float = 0.0  # cDPO: the share of preferences taken to be flipped
    schedule: Schedule = _OFFLINE

    def __post_init__(self) -> None:
        """Check the share of flipped labels.

        Raises:
            BadInput: It is negative, or one half and more.
        """
        if not 0 <= self.label_smoothing < 0.5:
            raise BadInput(f"trl_dpo: label_smoothing must be at least 0 and below 0.5, got {self.label_smoothing}")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences; the SFT policy is the reference model."""
        settings = {"beta": self.beta, "label_smoothing": self.label_smoothing}
        trainer = PairTrainer("DPOTrainer", settings, self.schedule)
        return lab.train_with(trainer, task.policy, labelled_pairs(task, lab))


@method("trl_kto", paper="arXiv:2402.01306", family="trl")
@dataclass(frozen=True)
class TRLKTO:
    """TRL's KTOTrainer."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    desirable_weight: float = 1.0  # the paper's lambda_D
    undesirable_weight: float = 1.0  # lambda_U
    schedule: Schedule = _OFFLINE

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the completions of the pairs one by one."""
        weights = {"desirable_weight": self.desirable_weight, "undesirable_weight": self.undesirable_weight}
        trainer = PairTrainer("KTOTrainer", {"beta": self.beta, **weights}, self.schedule)
        return lab.train_with(trainer, task.policy, labelled_pairs(task, lab))


@method("trl_orpo", paper="arXiv:2403.07691", family="trl")
@dataclass(frozen=True)
class TRLORPO:
    """TRL's experimental ORPOTrainer."""

    odds_coef: float = 0.1  # the paper's lambda, TRL's beta
    schedule: Schedule = _OFFLINE

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the policy to the preferences; there is no reference model."""
        trainer = PairTrainer("ORPOTrainer", {"beta": self.odds_coef}, self.schedule)
        return lab.train_with(trainer, task.policy, labelled_pairs(task, lab))


@dataclass(frozen=True)
class _Online:
    """What TRL's online trainers share: rounds of sampling, scored by the reward model of all methods."""

    missing_eos_penalty: float = 1.0  # taken off the score of a completion that does not finish
    updates: int = 10  # rounds of sampling
    prompts_per_update: int = 24
    reward_model: RewardModelling = RewardModelling()
    schedule: Schedule = _ONLINE

    def _trained(self, task: Task, lab: Lab, name: str, settings: Mapping[str, Any], n: int) -> Policy:
        installed()  # before the work on a reward model
        scorer = self.reward_model.fit(task, lab)
        of_sampling = (scorer, self.missing_eos_penalty, self.prompts_per_update, n)
        trainer = OnlineTrainer(name, settings, self.schedule, *of_sampling)
        prompts = rollout_prompts(task, lab, scorer, self.updates, self.prompts_per_update)
        return lab.train_with(trainer, task.policy, prompts)


@method("trl_rloo", paper="arXiv:2402.14740", family="trl")
@dataclass(frozen=True)
class TRLRLOO(_Online):
    """TRL's RLOOTrainer."""

    kl_coef: float = 0.05  # reward lost per nat of KL to the reference model, TRL's beta
    cliprange: float = 0.2
    n: int = 4  # completions a prompt

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to the reward."""
        settings = {"beta": self.kl_coef, "epsilon": self.cliprange}
        return self._trained(task, lab, "RLOOTrainer", settings, self.n)


@method("trl_grpo", paper="arXiv:2402.03300", family="trl")
@dataclass(frozen=True)
class TRLGRPO(_Online):
    """TRL's GRPOTrainer, by default with the paper's loss instead of TRL's."""

    kl_coef: float = 0.04  # weight of the KL term, TRL's beta
    cliprange: float = 0.2
    loss_type: Literal["grpo", "dapo", "bnpo", "dr_grpo"] = "grpo"  # how tokens are averaged
    n: int = 4  # completions a prompt

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to the standardised reward."""
        settings = {"beta": self.kl_coef, "epsilon": self.cliprange, "loss_type": self.loss_type}
        return self._trained(task, lab, "GRPOTrainer", {**settings, "use_bias_correction_kl": False}, self.n)


@method("trl_online_dpo", paper="arXiv:2402.04792", family="trl")
@dataclass(frozen=True)
class TRLOnlineDPO(_Online):
    """TRL's experimental OnlineDPOTrainer: always on-policy, a step on every batch it samples."""

    beta: float = 0.1  # larger keeps the policy closer to the reference model
    updates: int = 20  # rounds of sampling
    prompts_per_update: int = 24  # two completions each
    schedule: Schedule = Schedule(learning_rate=2e-4, batch_size=24, lr_scheduler_type="linear")

    def __post_init__(self) -> None:
        """Check the epochs.

        Raises:
            BadInput: There is more than one.
        """
        if self.schedule.num_train_epochs != 1:
            raise BadInput("trl_online_dpo takes one step on what it samples: set schedule.num_train_epochs to 1")

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit a reward model to the preferences, then the policy to what it prefers of the policy's own samples."""
        return self._trained(task, lab, "OnlineDPOTrainer", {"beta": self.beta}, 2)
