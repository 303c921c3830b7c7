"""What all methods of one seed are given: the SFT policy, the prompts, and preferences that are charged when read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any

import numpy as np
from datasets import Dataset

from alignarena.benchmarks.datasets import DATASETS
from alignarena.benchmarks.exact import own_targets as _  # noqa: F401 - registers them
from alignarena.benchmarks.exact.laboratory import Laboratory
from alignarena.benchmarks.exact.preferences import ExactPreferences
from alignarena.benchmarks.splits import Splits
from alignarena.benchmarks.suite import Suite
from alignarena.core.contract import Judge, Lab, PreferenceStream, Rows, Scorer, Task, TrainablePolicy
from alignarena.core.errors import BadInput
from alignarena.core.records import Ledger
from alignarena.evaluators.annotator import SimulatedAnnotator
from alignarena.evaluators.exact.world import AXES, Floats
from alignarena.evaluators.human import RecordedPreferences
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.lab import HarnessLab
from alignarena.harness.progress import StageProgress
from alignarena.methods.parts.experience import Fixed
from alignarena.methods.parts.losses import SFTLoss
from alignarena.methods.parts.rows import rankings


class Lazily(Mapping[str, Rows | PreferenceStream]):
    """Preferences by axis, each made when first read: who never reads an axis never pays for its labels."""

    def __init__(self, makers: Mapping[str, Callable[[], Rows | PreferenceStream]]) -> None:
        self._makers, self._made = dict(makers), dict[str, Rows | PreferenceStream]()

    def __getitem__(self, name: str) -> Rows | PreferenceStream:
        if name not in self._made:
            self._made[name] = self._makers[name]()
        return self._made[name]

    def __contains__(self, name: object) -> bool:
        return name in self._makers  # a mapping's own would make what it is asked about

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


@dataclass(frozen=True)
class Given:
    """What is fixed for all methods, whichever lab computes it: a dry run builds the same task on paper."""

    suite: Suite
    splits: Splits
    base: TrainablePolicy  # the model as given

    def sft(self, lab: Lab) -> TrainablePolicy:
        """Fine-tune the base on the demonstrations."""
        demonstrations = Dataset.from_list(self.splits.demonstrations)
        return lab.fit(self.base, Fixed(demonstrations), SFTLoss(), self.suite.sft)

    def task(self, sft: TrainablePolicy, lab: Lab) -> Task:
        """Return the task of a cell, whose preferences its lab pays for."""
        entry, annotators = DATASETS[self.suite.data.dataset], self._annotators()
        return Task(
            base=self.base,
            policy=sft,
            prompts=Dataset.from_list(self.splits.prompts),
            demonstrations=Dataset.from_list(self.splits.demonstrations),
            preferences=Lazily(self._preferences(sft, lab)),
            annotator=annotators.pop("overall", None),
            annotators=annotators,
            labeler=self.labeler,
            reviser=entry.reviser(self.suite.data, self.base),
            principles=self.suite.feedback.constitution or entry.principles(self.suite.data),
            goal=entry.goal,
            grades=entry.grades,
        )

    @property
    def labeler(self) -> Judge:
        """The AI labeler: of every data set the model as given, or the exact world's."""
        entry = DATASETS[self.suite.data.dataset]
        return entry.labeler(self.suite.data, self.base, self.suite.feedback.annotator == "exact")

    def judge_preferences(self, lab: Lab) -> Rows:
        """Return the pairs that only the win rate's judge is fitted to.

        Raises:
            BadInput: There are none.
        """
        pairs = self.splits.judge_preferences.get("overall")
        if not pairs:
            raise BadInput(
                "no pair is left for the win rate's judge (split reward_model_judge); give more rows, or evaluators "
                "without win_rate"
            )
        return human_rankings(lab, pairs)

    def heldout_preferences(self, sft: TrainablePolicy, lab: Lab) -> Rows:
        """Return rankings that no method is given: of validation prompts, or the pairs kept for the win rate's judge.

        Raises:
            BadInput: There are none.
        """
        if self.suite.feedback.annotator == "human":
            return self.judge_preferences(lab)
        if not self.splits.validation:
            raise BadInput("heldout_reward: no validation prompt is left; raise data.sizes.validation, or leave it out")
        return lab.prefer(rankings(self.heldout_samples(sft, lab)), self._annotators()["overall"])

    def heldout_samples(self, sft: TrainablePolicy, lab: Lab) -> Rows:
        """Sample the SFT policy on the validation prompts, as often as the annotator compares."""
        prompts, feedback = Dataset.from_list(self.splits.validation), self.suite.feedback
        return lab.sample(sft, prompts, feedback.n, stream="held-out annotator", sampling=feedback.sampling)

    @property
    def scorers(self) -> dict[str, Scorer]:
        """What a simulated annotator may rank by; ``feedback.scorer`` names the hidden reward."""
        return DATASETS[self.suite.data.dataset].scorers(self.suite.data)

    @property
    def gold(self) -> Scorer:
        """The hidden reward of the simulation.

        Raises:
            BadInput: The dataset has no such scorer.
        """
        name = self.suite.feedback.scorer
        if name not in self.scorers:
            raise BadInput(f"feedback.scorer: {name!r} is not one of {', '.join(self.scorers) or 'none'}")
        return self.scorers[name]

    def _annotators(self) -> dict[str, Judge]:
        """Return who can be asked, by axis: "overall", whose scorer is the hidden reward, first."""
        feedback = self.suite.feedback
        if feedback.annotator == "human":
            return {}
        noise = 0.0 if feedback.annotator == "exact" else feedback.noise
        axes = {"overall": self.gold, **{name: one for name, one in self.scorers.items() if name != feedback.scorer}}
        return {axis: SimulatedAnnotator(scorer, noise) for axis, scorer in axes.items()}

    def log_reference(self, sft: TrainablePolicy) -> Floats:
        """Return the SFT policy's distribution over a world's completions (P, N), nats; as stated until it is known."""
        world = self.suite.data.world
        return np.stack([world.leaves.markov(world.demonstration_logits(prompt)) for prompt in world.trained])

    def _stream(self, axis: str, sft: TrainablePolicy) -> PreferenceStream:
        world, feedback = self.suite.data.world, self.suite.feedback
        known = partial(self.log_reference, sft)
        return ExactPreferences(world, axis, sft.digest, known, feedback.phases, feedback.pairs)

    def _preferences(self, sft: TrainablePolicy, lab: Lab) -> dict[str, Callable[[], Rows | PreferenceStream]]:
        if self.suite.feedback.annotator == "human":
            return {axis: partial(human_rankings, lab, rows) for axis, rows in self.splits.preferences.items()}
        if self.suite.feedback.annotator == "exact":
            return {axis: partial(self._stream, axis, sft) for axis in ("overall", *AXES)}
        feedback, annotators = self.suite.feedback, self._annotators()
        others = len(annotators) - 1

        def ranked(annotator: Judge, place: int) -> Rows:
            prompts = Dataset.from_list(self.splits.feedback_prompts)
            drawn = rankings(lab.sample(sft, prompts, feedback.n, stream="annotator", sampling=feedback.sampling))
            if place >= 0:  # the further axes share the prompts: together they cost the labels that "overall" costs
                drawn = drawn.select(sorted(lab.random("axes").permutation(len(drawn))[place::others]))
            return lab.prefer(drawn, annotator)

        return {axis: partial(ranked, one, place) for place, (axis, one) in enumerate(annotators.items(), -1)}


@dataclass(frozen=True)
class Start(Given):
    """One seed of a suite: SFT, annotator noise and everything after them are redrawn with the seed."""

    backbone: Backbone
    cache: Cache
    seed: int
    progress: StageProgress = field(default_factory=StageProgress)

    def laboratory(self, sft: TrainablePolicy) -> Laboratory:
        """Return the exact laboratory of this seed.

        Raises:
            BadInput: The dataset is not an exact world.
        """
        data, feedback = self.suite.data, self.suite.feedback
        if data.dataset != "exact":
            raise BadInput(f"evaluators: 'exact' needs the dataset 'exact', not {data.dataset!r}; leave it out")
        return Laboratory(data.world, self.backbone, sft, feedback.annotator == "exact", feedback.noise)

    def log_reference(self, sft: TrainablePolicy) -> Floats:
        """Return the SFT policy's distribution over the completions of trained combinations (P, N), nats."""
        return self.laboratory(sft).trained.log_reference

    def lab(self) -> HarnessLab:
        """Return a fresh lab of this seed without a budget (for shared work and evaluation)."""
        return HarnessLab(self.backbone, self.cache, self.seed, progress=self.progress)

    def cell_lab(self, sft: TrainablePolicy) -> HarnessLab:
        """Return the lab of one cell: with its budget, and owing the SFT policy until it is used."""
        lab = HarnessLab(self.backbone, self.cache, self.seed, self.suite.budget, self.progress)
        lab.owe(sft, self._sft_cost)
        return lab

    @cached_property
    def _sft_cost(self) -> Ledger:
        """What the SFT policy costs, cold; the policy itself was made before."""
        lab = self.lab()
        self.sft(lab)
        return lab.account.charged


def human_rankings(lab: Lab, pairs: Sequence[Mapping[str, Any]]) -> Rows:
    """Return people's pairs as rankings of two, charged one label a pair; which side comes first is drawn."""
    rows = []
    for pair in pairs:
        sides = [pair["chosen"], pair["rejected"]]
        if lab.random("side", pair["pair_id"]).random() < 0.5:
            sides.reverse()
        rows.append({**pair, "completions": sides})
    return lab.prefer(Dataset.from_list(rows), RecordedPreferences())
