"""One side of DPO alone: ``python -m alignarena.benchmarks.perf.memory_job JOB.json`` writes losses and peak memory.

A side imports only what it needs itself, as that counts too.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignarena.benchmarks.perf.terms import Settings, Terms
from alignarena.benchmarks.perf.work import Comparison, our_rows
from alignarena.core.files import read_json, write_json
from alignarena.harness.meter import lifetime_peak_mib


def main(argv: Sequence[str]) -> None:
    """Do the job of a file."""
    job = read_json(argv[0])
    terms, settings = Terms(**job["terms"]), Settings(**job["settings"])
    data = [Comparison(tuple(row["prompt"]), tuple(map(tuple, row["completions"]))) for row in job["data"]]
    folder = Path(job["folder"])
    losses = _ours(terms, data, folder) if job["side"] == "ours" else _theirs(terms, settings, data, folder)
    write_json(folder / "answer.json", {"losses": losses, "peak_mib": lifetime_peak_mib()})


def _ours(terms: Terms, data: Sequence[Comparison], folder: Path) -> list[float]:
    from alignarena.benchmarks.perf.ours import OurSide
    from alignarena.harness.backbone import Backbone
    from alignarena.methods.parts.experience import Fixed
    from alignarena.methods.parts.losses import DPOLoss

    backbone = Backbone(terms.config)
    with OurSide(backbone, Fixed(our_rows(data, backbone.tokens)), DPOLoss(), terms, folder) as ours:
        return [float(ours.step()["loss"]) for _ in range(terms.steps)]


def _theirs(terms: Terms, settings: Settings, data: Sequence[Comparison], folder: Path) -> list[float]:
    from safetensors.torch import load_file

    from alignarena.benchmarks.perf import theirs
    from alignarena.benchmarks.perf.alternation import Alternation

    trainer: Any = theirs.dpo(terms, settings, data, folder)
    if terms.use_peft:
        theirs.set_adapter(trainer, load_file(folder / "adapter.safetensors"))
    alternation = Alternation(dict)
    theirs.quiet(trainer, alternation).train()
    return [float(line["loss"]) for line in alternation.turns.their_lines]


if __name__ == "__main__":
    main(sys.argv[1:])
