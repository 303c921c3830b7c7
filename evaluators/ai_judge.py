"""The AI judge: a language model that grades one completion at a time, unless it had a hand in the training.

It is the suite's AI labeler. Where a policy was trained on its judgements, or on what its model wrote, it would be
grading its own taste, so it says nothing there: a matter of lineage, not of a method's name.
"""

from __future__ import annotations

from collections.abc import Iterable

from alignarena.core.contract import Labeler, Scorer
from alignarena.core.errors import BadInput
from alignarena.core.lineage import models, roots
from alignarena.evaluators.evidence import Evidence, Measures, Row


def measure(evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    """Yield ``ai_judge``, the mean grade in [-1, 1] of the first answer to each prompt.

    It is ``None`` where the judge gave the training feedback, or its model wrote what was trained on.

    Raises:
        BadInput: The data set has no labeler that scores.
    """
    judge = evidence.labeler
    if not isinstance(judge, Scorer):
        raise BadInput("ai_judge: this data set has no AI labeler that scores a completion; leave the evaluator out")
    own = roots(judge) | (models(judge.writer) if isinstance(judge, Labeler) else frozenset())
    # one answer a prompt: its questions are long, and a second answer says less than another prompt
    answers = evidence.rows.select([i for i, sample in enumerate(evidence.rows["sample"]) if sample == 0])
    if own & evidence.lineage:
        return ((row, {"ai_judge": None}) for row in answers)
    return ((row, {"ai_judge": row["score"]}) for row in evidence.lab.score(answers, judge))
