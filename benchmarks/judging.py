"""A judge's verdicts on the stored completions of a run, against SFT's. Nothing is sampled or trained."""

from __future__ import annotations

import math
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignarena.benchmarks.against_sft import Row, compared, feedback, no_completions, paired
from alignarena.core.errors import RunFailed
from alignarena.core.lineage import WITHHELD, compared_model, same_family
from alignarena.core.text import prompt_text
from alignarena.evaluators.judges.pairs import Answer, PairJudge, orders_read
from alignarena.evaluators.judges.registry import IN_A_RUN, find_judge
from alignarena.results import agreement
from alignarena.results.cells import Cell
from alignarena.results.folders import BASELINE, run_folders
from alignarena.results.stats import bootstrap_interval
from alignarena.results.store import RunFolder

_COLUMNS = ["method", "seed", "win rate", "low", "high", "swap consistency", "position bias", "unreadable", "missing",
            "suspects", "reason"]  # fmt: skip
_AGAIN = "once that is mended, the same command asks again"
_UNREADABLE = ("no reply named a side",
               "replies are kept, so ask by other settings: --set max_tokens=2048 if it reasons first")  # fmt: skip


def judge(run_dir: str | Path, spec: str, settings: Mapping[str, Any] | None = None) -> None:
    """Add a judge's verdicts to a run folder, or to those of a study's variants.

    Args:
        run_dir: A run folder.
        spec: A judge by name; ``gold`` and ``reward_model`` are those of the run.
        settings: Its fields that differ from their defaults.

    Raises:
        BadInput: No such judge or folder, or a run without SFT.
        RunFailed: The judge answers nothing at all, or nothing that names a side.
    """
    for folder in run_folders(run_dir):
        _judge(folder, spec, settings)


@dataclass(frozen=True)
class _Judged:
    """One cell under a judge: its rows with what the judge said of each, or why it may not say anything."""

    cell: Cell
    rows: list[Row]
    answers: list[Answer]
    withheld: str = ""

    @property
    def key(self) -> str:
        return f"{self.cell.method}/{self.cell.seed}"

    def scores(self, metric: str) -> list[dict[str, Any]]:
        """Return the verdicts as scores; what was not answered is not among them, but in the table."""
        return [
            {"prompt_id": row["prompt_id"], "cluster": row.get("cluster"), "sample": row["sample"],
             "evaluator": metric, "metric": metric, "value": answer.probability}
            for row, answer in zip(self.rows, self.answers, strict=True) if answer.probability is not None
        ]  # fmt: skip

    def line(self) -> list[Any]:
        """Return the row of the judge's table."""
        wins = [math.nan if one.probability is None else one.probability for one in self.answers]
        rate = bootstrap_interval(wins, [str(row.get("cluster") or row["prompt_id"]) for row in self.rows])
        orders = orders_read(self.answers)
        measured = [rate.mean, rate.low, rate.high, agreement.swap_consistency(orders), agreement.position_bias(orders)]
        missing = Counter(one.missing for one in self.answers if one.missing)
        counts = [sum(one.unreadable for one in self.answers), missing.total(), sum(map(_suspect, self.answers))]
        reason = self.withheld or "; ".join(f"{count} {why}" for why, count in missing.items())
        known = [round(value, 4) if math.isfinite(value) else None for value in measured]
        return [self.cell.method, self.cell.seed, *known, *(counts if self.answers else [None] * 3), reason]


def _suspect(answer: Answer) -> bool:
    return bool(answer.suspects)


def _judge(folder: RunFolder, spec: str, settings: Mapping[str, Any] | None) -> None:
    cells = [folder.read_cell(*cell) for cell in compared(folder)]
    baselines = {seed: folder.read_cell(BASELINE, seed) for seed in sorted({cell.seed for cell in cells})}
    if not any(cell.completions for cell in cells):
        raise no_completions(folder)
    of_run = spec in IN_A_RUN
    groups = [[cell for cell in cells if cell.seed == seed] for seed in baselines] if of_run else [cells]
    everything = [*cells, *baselines.values()]
    judged = list[_Judged]()
    for group in groups:
        asked = _of_run(folder, spec, everything, group[0].seed) if of_run else find_judge(spec, settings)
        judged += _verdicts(asked, group, baselines, folder)
    _must_have_answered(asked, [answer for one in judged for answer in one.answers])
    _write(folder, spec.partition(":")[0], asked, judged)


def _must_have_answered(asked: PairJudge, answers: Sequence[Answer]) -> None:
    questions = [one for one in answers if not one.ruled]
    if not questions or any(not one.missing and one.unreadable < 2 for one in questions):
        return
    missing = Counter(one.missing for one in questions if one.missing)
    why, then = (missing.most_common(1)[0][0], _AGAIN) if missing else _UNREADABLE
    raise RunFailed(f"judge {asked.name} answered none of {len(questions)} comparisons ({why}), and nothing was "
                    f"written; {then}")  # fmt: skip


def _of_run(folder: RunFolder, spec: str, cells: Sequence[Cell], seed: int) -> PairJudge:
    """Return the run's gold or its reward model as a judge, with the rows that it may read."""
    from alignarena.benchmarks.rescore import stored_bench  # the run's model: other judges do without torch
    from alignarena.evaluators.judges.scored import ScorerJudge

    bench = stored_bench(folder, seed)
    rows = {(prompt_text(row["prompt"]), row["completion"]): row for cell in cells for row in cell.completions}
    scorer = bench.given.gold if spec == "gold" else bench.proxy
    return ScorerJudge(spec, scorer, bench.lab, rows)


def _verdicts(
    asked: PairJudge, cells: Sequence[Cell], baselines: Mapping[int, Cell], folder: RunFolder
) -> list[_Judged]:  # fmt: skip
    """Let a judge compare the completions of all cells at once: one price, one cap."""
    withheld = {id(cell): _withheld(asked, cell, folder) for cell in cells}
    found = {id(cell): [] if withheld[id(cell)] else paired(cell.completions, baselines[cell.seed].completions)
             for cell in cells}  # fmt: skip
    answers = iter(asked.answers([pair for cell in cells for _, pair in found[id(cell)]]))
    return [_Judged(cell, [row for row, _ in found[id(cell)]], [next(answers) for _ in found[id(cell)]],
                    withheld[id(cell)]) for cell in cells]  # fmt: skip


def _withheld(asked: PairJudge, cell: Cell, folder: RunFolder) -> str:
    """Return why a judge's verdict on a cell may not stand; a diagnostic claims none."""
    own = asked.role == "verdict" and asked.lineage & feedback(folder, cell)
    return WITHHELD if own else ""


def _metric(folder: RunFolder, kind: str, asked: PairJudge) -> str:
    """Return what a judge's scores are called: its name, with its kind if a judge of another kind took that before."""
    metric = f"judge_{re.sub(r'[^a-z0-9]+', '_', asked.name.lower()).strip('_')}"
    known = folder.provenance.get("evaluators", {}).get(metric, {})
    return metric if known.get("kind", kind) == kind else f"{metric}_{kind}"


def _write(folder: RunFolder, kind: str, asked: PairJudge, judged: Sequence[_Judged]) -> None:
    metric = _metric(folder, kind, asked)
    for one in judged:
        kept = [row for row in one.cell.scores if row["evaluator"] != metric]
        folder.write_cell(one.cell.method, one.cell.seed, scores=[*kept, *one.scores(metric)])
    how = f" {asked.how}" if asked.how else ""
    note = f"win rate against SFT by the judge {asked.name}{how}, ties half{_warning(asked, folder)}"
    withheld = {one.key: one.withheld for one in judged if one.withheld}
    card = {"role": asked.role, "kind": kind, "note": note, "withheld": withheld}
    noted = folder.provenance
    folder.write_json("provenance.json", {**noted, "evaluators": {**noted.get("evaluators", {}), metric: card}})
    table = {"title": f"Judge {asked.name} ({asked.role})", "caption": _caption(note), "columns": _COLUMNS,
             "rows": [one.line() for one in judged]}  # fmt: skip
    folder.write_json(f"extra/{metric}.json", table)
    folder.write_results_parquet()


def _warning(asked: PairJudge, folder: RunFolder) -> str:
    compared = compared_model(folder.suite)
    if not asked.model or not same_family(asked.model, compared):
        return ""
    warning = f"it is of the family of the model compared ({compared}) and may prefer its own kind"
    print(f"judge {asked.name}: {warning}; ask one of another family too", file=sys.stderr)
    return f"; {warning}"


def _caption(note: str) -> str:
    return (
        f"{note[0].upper()}{note[1:]}. 95 % intervals over clusters of prompts, a seed each. An unreadable reply is "
        "even, and its pair in neither consistency nor bias; a pair without an answer is missing, and the same command "
        "asks for it. Suspects: pairs of which a completion is empty, cut, or seems to be written for the judge."
    )
