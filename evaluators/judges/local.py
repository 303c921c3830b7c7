"""A language model on this machine as judge: the labeler's questions in both orders, read off its log-probs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from alignarena.core.digest import digest
from alignarena.core.lineage import model_root
from alignarena.evaluators.judges.pairs import Answer, Pair
from alignarena.evaluators.judges.suspects import asked_safely

if TYPE_CHECKING:
    from alignarena.harness.lab import HarnessLab

_AT_A_TIME = 64  # pairs whose answers are kept together: so many a killed run asks again at most


@dataclass(frozen=True)
class LocalJudge:
    """Asks a model of the Hub, of a folder, or the embedded one."""

    model: str
    goal: str = ""  # what the better one does; empty: is helpful, honest and harmless
    pointwise: bool = False  # grade each alone and compare the grades, which no order can sway
    rationale_tokens: int = 0  # length of a chain of thought before the verdict; 0: none
    role: str = "verdict"
    lab: Any = field(default=None, compare=False, repr=False)  # where the model runs; None: one is made

    @property
    def name(self) -> str:
        """The model's own name, and how it is asked where not as usual; a goal of its own by digits."""
        ways = ["pointwise"] * self.pointwise + ["thinking"] * bool(self.rationale_tokens)
        ways += [digest(self.goal)[:6]] * bool(self.goal)
        return "-".join([self.model.rstrip("/").rpartition("/")[2], *ways])

    @property
    def how(self) -> str:
        """Where, and for what goal if it has one of its own."""
        return "on this machine" + f", for the goal {self.goal!r}" * bool(self.goal)

    @property
    def lineage(self) -> frozenset[str]:
        """The model."""
        return frozenset({model_root(self.model)})

    def answers(self, pairs: Sequence[Pair]) -> list[Answer]:
        """Ask what no rule decides, a batch at a time; batches that were asked before are in the cache."""
        return asked_safely(pairs, self._ask)

    def _ask(self, pairs: Sequence[Pair]) -> list[Answer]:
        from datasets import Dataset

        from alignarena.evaluators.labeler import LanguageLabeler, comparison, grading
        from alignarena.harness.policy import AdapterPolicy

        lab = self.lab or self._new_lab()
        labeler = LanguageLabeler(
            AdapterPolicy(lab.backbone.digest), comparison(self.goal), grading(self.goal), by_score=self.pointwise,
            rationale_tokens=self.rationale_tokens, lineage=self.lineage,
        )  # fmt: skip
        answers = list[Answer]()
        for start in range(0, len(pairs), _AT_A_TIME):
            batch = pairs[start : start + _AT_A_TIME]
            rows = [{"prompt_id": digest(one), "prompt": one.prompt, "completions": [one.a, one.b]} for one in batch]
            answers += map(_answer, lab.prefer(Dataset.from_list(rows), labeler).to_list())
        return answers

    def _new_lab(self) -> HarnessLab:
        from alignarena.core.model import ModelConfig
        from alignarena.harness.backbone import Backbone
        from alignarena.harness.cache import Cache
        from alignarena.harness.lab import HarnessLab

        return HarnessLab(Backbone(ModelConfig(model_name_or_path=self.model)), Cache(), seed=0)


def _answer(row: dict[str, Any]) -> Answer:
    orders = row.get("orders")
    return Answer(float(row["probability"]), (orders[0], orders[1]) if orders else None)
