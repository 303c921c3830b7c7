import math

import pytest
import torch

from alignarena.benchmarks.perf.online import online_update
from alignarena.benchmarks.perf.rloo import RLOOLoss
from alignarena.core.contract import Batch

MASK = torch.tensor([[1.0, 1.0], [1.0, 0.0], [1.0, 1.0], [1.0, 1.0]])


def batch(old, reference, score, prepared=None):
    return Batch(
        mask={"completion": MASK}, old={"completion": old}, reference={"completion": reference},
        columns={"score": torch.tensor(score)}, prepared=prepared or {},
    )  # fmt: skip


def test_leave_one_out_advantages_by_hand():
    old = torch.tensor([[-1.0, -1.0], [-2.0, 9.0], [-1.0, -1.0], [-1.0, -1.0]])  # 9 is padding
    reference = torch.tensor([[-2.0, -2.0], [-2.0, -7.0], [-1.0, -1.0], [-1.0, -1.0]])
    state: dict[str, float] = {}
    found = RLOOLoss(n=2, kl_coef=0.5, cliprange=0.2).prepare(batch(old, reference, [3.0, 1.0, 0.0, 4.0]), state)
    # KL of the first completion is 2 nats: rewards 3 - 1 = 2 and 1, then 0 and 4; each less the other
    assert found["advantages"].tolist() == [1.0, -1.0, -4.0, 4.0]
    assert state == pytest.approx({"score": 2.0, "kl": 2 / 7})


def test_loss_by_hand():
    old = torch.zeros(4, 2)
    advantages = torch.tensor([1.0, -1.0, 1.0, 2.0])
    outputs = torch.tensor([[0.5, 0.5], [0.1, 7.0], [0.0, 0.0], [-1.0, 0.0]])
    one = RLOOLoss(n=2, kl_coef=0.0, cliprange=0.2)
    loss, _ = one({"completion": outputs}, batch(old, old, [0.0] * 4, {"advantages": advantages}))
    # ratios e, e^0.1, 1 and 1/e: the first is clipped to 1.2, the last counts in full as it is the smaller
    assert loss.tolist() == pytest.approx([-1.2, math.exp(0.1), -1.0, -2 * math.exp(-1)])


@pytest.mark.parametrize("use_peft", [False, True])
def test_one_update_side_by_side(new_bench, use_peft):
    entry = online_update(new_bench(), use_peft)
    assert entry.equal, entry.equality
    assert [one.what.split()[0] for one in entry.equality] == ["new", "scores", "KL", "gradient"]
    assert entry.unit == "useful tokens/s"
