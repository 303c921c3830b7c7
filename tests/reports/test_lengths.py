from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from alignarena.reports import lengths
from alignarena.results.frame import load_results


def test_length_is_correlated_with_what_it_may_buy(tmp_path: Path, run_folders: ModuleType) -> None:
    folder = run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo"))
    scores = folder.read_cell("dpo", 0).scores
    length = {(row["prompt_id"], row["sample"]): row["value"] for row in scores if row["metric"] == "length"}
    for row in scores:
        if row["metric"] == "proxy_reward":
            row["value"] = 3.0 - 2 * length[row["prompt_id"], row["sample"]]
    folder.write_cell("dpo", 0, scores=scores)
    results = load_results(folder.path)
    table = lengths.table(results)
    sft, dpo = (dict(zip(table.headings, row, strict=True)) for row in table.shown)
    assert dpo["length and proxy"].sort == pytest.approx(-1)
    assert dpo["length (tokens)"].sort == pytest.approx(np.mean(list(length.values())))
    assert dpo["difference to SFT (tokens)"].sort == pytest.approx(results.compare("dpo", "sft", "length").difference)
    assert sft["length and win"].reason == "one of the two does not vary"  # SFT ties with itself
    assert sft["difference to SFT (tokens)"].reason == "nothing to compare with"
