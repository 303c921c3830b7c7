"""The AI reviser: a language model that criticises a completion by a principle and then rewrites it.

After Constitutional AI (Bai et al., 2022; arXiv:2212.08073, section 3): solved examples come first, for without them a
model confuses the two roles. What a model writes stands in turns of its own and is never read as a template.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from datasets import Dataset

from alignarena.core.contract import Lab, Principle, Rows, Sampling, TrainablePolicy
from alignarena.evaluators.constitution import draw
from alignarena.evaluators.labeler import as_text

Turns = list[dict[str, str]]
_OF_THE_OLD = ("completion_ids", "logps", "score")


@dataclass(frozen=True)
class Exemplar:
    """A completion that was criticised and rewritten, to show how it is done."""

    prompt: str
    completion: str
    principle: Principle
    critique: str
    revision: str


EXEMPLARS = (
    Exemplar(
        "What is a good comeback for a colleague who sings all day?",
        "Tell him his voice could strip paint and that everybody hopes he quits.",
        Principle("Say where the response is cruel.", "Rewrite the response so that it is kind and still helps."),
        "It ridicules the colleague in front of everybody and would start a quarrel.",
        "Tell him you work best in silence, and ask whether he could keep the singing for the lunch break.",
    ),
    Exemplar(
        "Which mushrooms in the woods can I eat?",
        "Just try a small bite of each and see how you feel.",
        Principle("Say what could go wrong for the person who asked.", "Rewrite the response so that it is safe."),
        "Some mushrooms kill in small amounts, so tasting them is dangerous.",
        "Eat only those that somebody trained has looked at; a local mushroom club can show you which are safe.",
    ),
)
SENTENCES = (
    Exemplar(
        "Write one sentence about a broom.",
        "The broom is a miserable thing in the corner of the kitchen.",
        Principle("Say which words of the sentence sound negative.", "Rewrite it as one sentence that is kind."),
        "The words miserable thing sound negative.",
        "The broom is a faithful helper in the corner of the kitchen.",
    ),
    Exemplar(
        "Describe the village well in a single sentence.",
        "The well has stones around it, and moss grows on them.",
        Principle("Say whether the sentence is dull.", "Rewrite it as one cheerful sentence."),
        "It is dull, since it says of the well nothing that anybody would enjoy.",
        "The well has stones around it, where neighbors love to sit and laugh.",
    ),
)


@dataclass(frozen=True)
class LanguageReviser:
    """Draws a principle for each row, asks for a critique by it, then for a revision; the next step sees neither."""

    writer: TrainablePolicy
    exemplars: tuple[Exemplar, ...] = EXEMPLARS
    critique: Sampling = Sampling(max_new_tokens=40, temperature=0.3)  # at 1, small models lose the thread
    revision: Sampling = Sampling(temperature=0.3)  # as long as the comparison's completions

    def revise(self, rows: Rows, principles: tuple[Principle, ...], lab: Lab, *, stream: str) -> Rows:
        """Return the rows revised once.

        A critique that was cut is used as far as it goes. Where the critique is empty no revision is asked for, and a
        revision that is empty or was cut is not taken: the old completion stands.
        """
        asked = rows.to_list()
        drawn = [draw(principles, lab, stream, row["prompt_id"], row.get("sample")) for row in asked]
        shown = [turn for one in self.exemplars for turn in _solved(one)]
        first = [[*shown, _shown(row, one)] for row, one in zip(asked, drawn, strict=True)]
        critiques = self._said(dict(enumerate(first)), f"{stream} critique", self.critique, lab)
        second = {
            place: [*first[place], _turn("assistant", said["completion"]), _rewrite(drawn[place])]
            for place, said in critiques.items()
            if said["completion"].strip()
        }
        revisions = self._said(second, f"{stream} revision", self.revision, lab)
        return Dataset.from_list(
            [
                revised(row, drawn[place], critiques[place]["completion"], _taken(revisions.get(place)))
                for place, row in enumerate(asked)
            ]
        )

    def _said(
        self, turns: dict[int, Turns], stream: str, sampling: Sampling, lab: Lab
    ) -> dict[int, dict[str, Any]]:
        """Return what the writer answers, by the numbers of the conversations."""
        if not turns:
            return {}
        rows = Dataset.from_list([{"prompt_id": str(place), "prompt": said} for place, said in turns.items()])
        answers = lab.sample(self.writer, rows, stream=stream, sampling=sampling)
        return dict(zip(turns, answers.to_list(), strict=True))


def revised(row: dict[str, Any], principle: Principle, critique: str, revision: str | None) -> dict[str, Any]:
    """Return a row with its revision, a text without ids like a demonstration; None: the old completion stands."""
    kept = {name: value for name, value in row.items() if name not in _OF_THE_OLD}
    told = {"principle": principle.critique_request, "critique": critique, "revised": revision is not None}
    if revision is None:
        return {**kept, **told, "changed": False}
    told["changed"] = revision != row["completion"]
    return {**kept, **told, "completion": revision, "finish_reason": "stop"}


def _taken(answer: dict[str, Any] | None) -> str | None:
    if answer is None or answer["finish_reason"] != "stop":
        return None
    return answer["completion"].strip() or None


def _solved(one: Exemplar) -> Iterator[dict[str, str]]:
    yield _shown({"prompt": one.prompt, "completion": one.completion}, one.principle)
    yield _turn("assistant", one.critique)
    yield _rewrite(one.principle)
    yield _turn("assistant", one.revision)


def _shown(row: dict[str, Any], principle: Principle) -> dict[str, str]:
    asked, answered = as_text(row["prompt"]), row["completion"]
    return _turn("user", f"Request: {asked}\nResponse: {answered}\n\nCritique: {principle.critique_request}")


def _rewrite(principle: Principle) -> dict[str, str]:
    return _turn("user", f"Revision: {principle.revision_request} Give the new response alone.")


def _turn(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}
