"""``python -m alignarena.benchmarks.perf``: run the comparisons and write ``bench.json``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignarena.benchmarks.perf.entry import BARS, Entry
from alignarena.benchmarks.perf.store import FILE, merge, problems
from alignarena.core.errors import AlignArenaError, BadInput

if TYPE_CHECKING:
    from alignarena.benchmarks.perf.bench import Bench

Measure = Callable[["Bench", bool], Entry]  # the flag: LoRA instead of full fine-tuning


def main(argv: Sequence[str] | None = None) -> int:
    """Run and return the exit status: 1 where two sides did not give equal results."""
    args = _parser().parse_args(argv)
    quieten()
    try:
        if args.repeats < 1:
            raise BadInput(f"--repeats: must be at least 1, got {args.repeats}")
        if not args.only:
            (Path(args.out) / FILE).unlink(missing_ok=True)
            return max([_alone(name, args) for name, _ in _measures()])
        with tempfile.TemporaryDirectory() as folder:
            from alignarena.benchmarks.perf.bench import new_bench

            entries = run(new_bench(args.model, args.repeats, Path(folder)), args.only, Path(args.out))
    except AlignArenaError as error:
        print("bench:", error, file=sys.stderr)
        return error.exit_status
    found = problems(entries)
    for problem in found:
        print("bench:", problem, file=sys.stderr)
    return 1 if found else 0


def _alone(name: str, args: argparse.Namespace) -> int:
    """Measure one thing in a process of its own; return its exit status, 1 where a signal ended it.

    What trainers leave behind adds up: in one process for all, memory grew to 17 GiB, and steps of both sides took 1.5
    to 1.9 times as long.
    """
    told = ["--out", args.out, "--only", name, "--repeats", str(args.repeats), "--model", args.model]
    status = subprocess.run([sys.executable, "-m", "alignarena.benchmarks.perf", *told], check=False).returncode
    return status if status >= 0 else 1


def run(bench: Bench, names: Sequence[str], out: Path) -> list[Entry]:
    """Measure what is named, full fine-tuning and LoRA, and write each entry as soon as it is there.

    Args:
        bench: The run.
        names: Keys of ``BARS``.
        out: Folder of ``bench.json``; other entries in it are kept.
    """
    from alignarena.benchmarks.perf.ours import release_memory

    entries = []
    for name, measure in _measures():
        for use_peft in (False, True) if name in names else ():
            release_memory()
            start = time.perf_counter()
            entry = measure(bench, use_peft)
            entries.append(entry)
            merge(out / FILE, [entry])
            print(_line(entry, time.perf_counter() - start), flush=True)
    return entries


def _measures() -> Iterator[tuple[str, Measure]]:
    from alignarena.benchmarks.perf.memory import dpo_peak_memory
    from alignarena.benchmarks.perf.mfu import model_utilisation
    from alignarena.benchmarks.perf.online import online_update
    from alignarena.benchmarks.perf.rollouts import rollouts
    from alignarena.benchmarks.perf.training import DUELS

    for duel in DUELS:
        yield duel.name, duel.run
    yield "rollouts_n4", rollouts
    yield "online_update", online_update
    yield "dpo_peak_memory", dpo_peak_memory
    yield "mfu", model_utilisation


def _line(entry: Entry, seconds: float) -> str:
    equal = "" if entry.equal else "  NOT EQUAL"
    spread = f"[{entry.ratio_low:.2f}, {entry.ratio_high:.2f}]"
    return f"{entry.name:20} {entry.ratio:6.2f} {spread:16} bar {entry.bar:<4g} {seconds:5.0f} s  {entry.work}{equal}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m alignarena.benchmarks.perf", description=__doc__)
    parser.add_argument("--out", default="runs/bench", help="folder of bench.json")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=list(BARS), help=f"of {', '.join(BARS)}")
    parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side, after one that is not")
    parser.add_argument("--model", default="smollm2-135m-instruct", help="embedded name, Hub id or local folder")
    return parser


def quieten() -> None:
    """Send nothing home, and show no bars or notes of other libraries."""
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    import transformers

    transformers.utils.logging.disable_progress_bar()
    warnings.filterwarnings("ignore", category=FutureWarning)  # TRL passes options that transformers renamed


if __name__ == "__main__":
    raise SystemExit(main())
