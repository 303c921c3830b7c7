"""alignarena: head-to-head comparisons of alignment methods with the same start, data and feedback."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from alignarena.core.contract import Lab, Task
from alignarena.core.errors import RunFailed
from alignarena.core.registry import method

if TYPE_CHECKING:
    from alignarena.reports.notebook import ShownResults

__version__ = "0.3.0"
__all__ = ["Lab", "Task", "__version__", "load_results", "method", "run"]


def run(suite: str, **overrides: Any) -> ShownResults:
    """Run a suite, write its report and return its results; the same as ``alignarena run SUITE``.

    Args:
        suite: A built-in name or the path of a YAML file; of a study, every variant runs, with one report over all.
        **overrides: ``out``, ``methods``, ``seeds``, ``set`` (a mapping of dotted keys) and ``jobs``, as on the command
            line.

    Raises:
        BadInput: The suite, a method or the folder does not fit.
        RunFailed: A method or a variant failed; the others are finished and in the report.
    """
    from alignarena.benchmarks.jobs import processes
    from alignarena.benchmarks.study import run as run_suite
    from alignarena.reports.page import write_report

    folder, failed = run_suite(suite, **overrides)
    if processes().is_main_process:  # of several, one writes and the others read
        write_report([folder])
    processes().wait_for_everyone()
    if failed:
        cells = [one for one in failed if os.path.isdir(os.path.join(folder, one))]  # not whole variants, with reasons
        said = f"see FAILED in {folder}/{cells[0]}" if cells else "put that right"
        raise RunFailed(f"{', '.join(failed)} failed; {said}, then run again")
    return load_results(str(folder))


def load_results(*run_dirs: str) -> ShownResults:
    """Read one or more run folders, complete or not; a study's folder stands for those of its variants.

    What comes back shows its leaderboard and draws the report's plots: ``r.frame``, ``r.leaderboard()``,
    ``r.compare("ppo", "dpo")``, ``r.plot_frontier()`` (``docs/tour.ipynb``).

    Raises:
        BadInput: A folder is no run folder, or none was given.
    """
    from alignarena.reports.notebook import ShownResults

    return ShownResults.load(*run_dirs)
