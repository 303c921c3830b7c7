"""Losses of preferred completions against numbers worked out by hand, and epochs for a number of tokens."""

from typing import Any

import pytest
import torch

from alignarena.core.contract import Batch, Schedule
from alignarena.methods.parts.imitation import ChosenLoss, PreferredLoss, for_tokens


def batch() -> tuple[dict[str, torch.Tensor], Batch]:
    nan = float("nan")
    outputs = {
        "chosen": torch.tensor([[-0.5, -1.0], [-2.0, nan]], dtype=torch.float64),
        "rejected": torch.tensor([[-3.0, nan, nan], [-0.25, -0.25, -0.5]], dtype=torch.float64),
    }
    mask = {side: (~torch.isnan(values)).double() for side, values in outputs.items()}
    return outputs, Batch(mask=mask, columns={"probability": torch.tensor([1.0, 0.25], dtype=torch.float64)})


def test_the_loss_of_preferred_completions_by_hand() -> None:
    outputs, given = batch()
    loss, _ = PreferredLoss()(outputs, given)
    assert loss.tolist() == [1.5, 2.0]
    soft, _ = PreferredLoss(soft=True)(outputs, given)
    assert soft.tolist() == [1.5, 0.25 * 2.0 + 0.75 * 1.0]
    assert PreferredLoss().columns == frozenset() and PreferredLoss(soft=True).columns == {"probability"}


def test_swapping_a_pair_and_its_probability_changes_nothing() -> None:
    outputs, given = batch()
    swapped = Batch(
        mask={"chosen": given.mask["rejected"], "rejected": given.mask["chosen"]},
        columns={"probability": 1 - given.columns["probability"]},
    )
    there, _ = PreferredLoss(soft=True)(outputs, given)
    back, _ = PreferredLoss(soft=True)({"chosen": outputs["rejected"], "rejected": outputs["chosen"]}, swapped)
    assert there.tolist() == back.tolist()


def test_the_chosen_alone_is_read() -> None:
    outputs, given = batch()
    assert dict(ChosenLoss.reads) == {"completion": ("prompt", "chosen")}
    one = Batch(mask={"completion": given.mask["chosen"]})
    loss, _ = ChosenLoss()({"completion": outputs["chosen"]}, one)
    assert loss.tolist() == [1.5, 2.0]


class Counts:
    """A lab that knows how long its rows are."""

    def tokens(self, rows: Any, loss: Any) -> int:
        return 400


@pytest.mark.parametrize(("bought", "epochs"), [(0, 1), (100, 1), (590, 1), (610, 2), (4000, 10)])
def test_epochs_come_nearest_to_the_tokens(bought: int, epochs: int) -> None:
    schedule = Schedule(learning_rate=1e-3, num_train_epochs=7)
    found = for_tokens(schedule, bought, None, ChosenLoss(), Counts())  # type: ignore[arg-type]
    assert found == Schedule(learning_rate=1e-3, num_train_epochs=epochs)
