"""``python -m alignarena.reports.method_pages``: what a method's page says of its results, from results/reference.

Pages hold a block between markers that is written anew from the stored runs, so that no figure is copied by hand.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from alignarena.core import registry
from alignarena.core.errors import AlignArenaError, BadInput
from alignarena.core.files import atomic_write
from alignarena.results.exact import exact_summary
from alignarena.results.frame import Results, load_results

ROOT = Path(__file__).resolve().parents[1]
PAGES, RUNS = ROOT / "docs" / "methods", ROOT / "results" / "reference"
BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
_NONE = "–"  # noqa: RUF001


def rewrite(pages: Path = PAGES, runs: Path = RUNS) -> list[str]:
    """Write the block of every page that has one; return the names of the pages that changed.

    Raises:
        BadInput: A page has one marker without the other.
    """
    changed = []
    for page in sorted(pages.glob("*.md")):
        old = page.read_text(encoding="utf-8")
        if BEGIN not in old:
            continue
        before, _, rest = old.partition(BEGIN)
        _, end, after = rest.partition(END)
        if not end:
            raise BadInput(f"{page} lacks the line {END} after {BEGIN}")
        new = f"{before}{BEGIN}\n{block(names_on(page.stem), runs)}\n{END}{after}"
        if new != old:
            atomic_write(page, new)
            changed.append(page.stem)
    return changed


def names_on(stem: str) -> list[str]:
    """Return the registered methods that a page is about: those of the method file of the same name."""
    registry.load_all()
    module = f"alignarena.methods.{stem}"
    return [name for name, entry in registry.METHODS.items() if entry.module == module]


def block(names: list[str], runs: Path = RUNS) -> str:
    """Return the results of some methods as Markdown."""
    parts = [_quickstart(names, runs), *_exact(names, runs)]
    return "\n\n".join(part for part in parts if part) or "None stored yet."


@cache
def _results(folder: Path) -> Results:
    return load_results(folder)


def _quickstart(names: list[str], runs: Path) -> str:
    board = _results(runs / "quickstart").leaderboard()
    rows = board[board["method"].isin(["sft", *names])].to_dict("records")
    if not any(row["method"] in names for row in rows):
        return ""
    seeds = max(int(row["seeds"]) for row in rows)
    head = ("method", "gold reward", "against SFT", "on topic", "KL (nats)", "tokens", "verdict", "not worse than SFT",
            "sampled tokens", "trained tokens", "labels", "labeler calls", "seconds")  # fmt: skip
    lines = [
        [f"`{row['method']}`", _interval(row, "gold_reward"), _interval(row, "gold_vs_sft"), _number(row["on_topic"]),
         _number(row["kl"], 2), _number(row["mean_length"], 1), row["verdict_vs_sft"], row["not_worse_than_sft"],
         *(_number(row[name], 0) for name in ("sampled_tokens", "trained_tokens", "labels", "labeler_calls",
                                              "seconds"))]
        for row in rows
    ]  # fmt: skip
    unit = "one seed: a claim about this checkpoint" if seeds == 1 else f"{seeds} seeds"
    return (f"Suite `quickstart` ({unit}; 95 % intervals, paired with SFT, clustered by topic; "
            f"`results/reference/quickstart`):\n\n{_markdown(head, lines)}")  # fmt: skip


def _exact(names: list[str], runs: Path) -> Iterator[str]:
    summary = exact_summary(_results(runs / "exact"))
    rows = [row for row in summary.to_dict("records") if row["method"].rsplit("/", 1)[-1] in names]
    limit = [row for row in rows if row["setting"] == "limit"]
    budget = [row for row in rows if row["setting"] == "budget"]
    if limit:
        head = ("method", "J efficiency, trained prompts", "held out", "learning error, trained prompts (nats)",
                "of its target's KL")  # fmt: skip
        lines = [[f"`{_short(row)}`", _of(row, "j_efficiency_trained"), _of(row, "j_efficiency"),
                  _of(row, "learning_error_trained"), _share(row)] for row in limit]  # fmt: skip
        yield f"Suite `exact`, setting `limit` (correctness, not a ranking):\n\n{_markdown(head, lines)}"
    if budget:
        head = ("method", "labels", "J efficiency, held out", "reward", "KL (nats)")
        lines = [[f"`{_short(row)}`", _number(row["labels"], 0), _of(row, "j_efficiency"), _of(row, "reward"),
                  _of(row, "kl", 2)] for row in budget]  # fmt: skip
        yield f"Suite `exact`, setting `budget` (95 % t-intervals over seeds):\n\n{_markdown(head, lines)}"


def _short(row: Mapping[Any, Any]) -> str:
    return str(row["method"]).rsplit("/", 1)[-1]


def _share(row: Mapping[Any, Any]) -> str:
    error, whole = row["learning_error_trained"], row["target_kl_trained"]
    known = math.isfinite(error) and math.isfinite(whole) and whole > 0
    return f"{error / whole:.1%}" if known else f"{_NONE} (no stated target)"


def _of(row: Mapping[Any, Any], name: str, places: int = 3) -> str:
    low, high = row.get(f"{name}_low", math.nan), row.get(f"{name}_high", math.nan)
    mean = _number(row[name], places)
    return mean if math.isnan(low) else f"{mean} [{_number(low, places)}, {_number(high, places)}]"


def _interval(row: Mapping[Any, Any], name: str) -> str:
    return _of({name: row[name], f"{name}_low": row[f"{name}_low"], f"{name}_high": row[f"{name}_high"]}, name)


def _number(value: Any, places: int = 3) -> str:
    if value is None or isinstance(value, str) or math.isnan(value):
        return _NONE
    return f"{value:,.{places}f}" if math.isfinite(value) else "∞"


def _markdown(head: tuple[str, ...], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows))


def main() -> int:
    """Rewrite the pages and say which changed."""
    try:
        changed = rewrite()
    except AlignArenaError as error:
        print("method_pages:", error, file=sys.stderr)
        return error.exit_status
    print("changed:", ", ".join(changed) or "none")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
