from dataclasses import replace

import pytest

from alignarena.benchmarks.perf.__main__ import problems
from alignarena.benchmarks.perf.training import DUELS
from alignarena.methods.parts.losses import DPOLoss

BY_NAME = {duel.name: duel for duel in DUELS}


@pytest.mark.parametrize(
    ("name", "use_peft"),
    [("dpo_live", False), ("dpo_precomputed", True), ("sft", False), ("reward_model_4wise", True)],
)
def test_both_sides_take_the_same_steps(new_bench, name, use_peft):
    entry = BY_NAME[name].run(new_bench(), use_peft)
    assert entry.equal, entry.equality
    assert entry.repeats == 2
    assert len(entry.details["our_losses"]) == 3  # the warm-up is compared as well
    assert len(set(entry.details["our_losses"])) == 3
    assert entry.ratio_low <= entry.ratio <= entry.ratio_high
    assert ("LoRA" if use_peft else "full") in entry.work
    assert (entry.details["reference_seconds_a_step"] > 0) == (name == "dpo_live")


def test_bf16_is_compared_within_its_tolerance(new_bench):
    entry = BY_NAME["dpo_live"].run(new_bench(precision="bf16"), False)
    assert entry.equal, entry.equality
    assert 0 < entry.equality[0].worst < entry.equality[0].tolerance


def test_another_loss_is_not_equal(new_bench):
    other = replace(BY_NAME["dpo_precomputed"], loss=DPOLoss(beta=0.5))  # TRL's is 0.1
    entry = other.run(new_bench(), True)
    assert not entry.equal
    assert any("its ratio means nothing" in problem for problem in problems([entry]))
