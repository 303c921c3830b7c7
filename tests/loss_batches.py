"""Batches for losses, and the numbers that come out of them."""

import torch
from torch.testing import assert_close

from alignarena.core.contract import Batch

# -log sigmoid
NLS = {-3: 3.048587, -2: 2.126928, -1: 1.313262, -0.5: 0.974077, 0: 0.693147}
NLS |= {0.5: 0.474077, 1: 0.313262, 2: 0.126928, 3: 0.048587}


def close(actual, *expected):
    assert_close(actual.detach(), torch.tensor(expected, dtype=actual.dtype), atol=2e-6, rtol=2e-6)


def pair_batch(dtype=torch.float32):
    """Two pairs: h is 5 in the first (2 for chosen, -3 for rejected), -10 in the second (0 and 10)."""
    outputs = {
        "chosen": torch.tensor([[-1.0, -2.0], [-1.0, 0.0]], dtype=dtype, requires_grad=True),
        "rejected": torch.tensor([[-4.0, 0.0, 0.0], [-1.0, -1.0, -1.0]], dtype=dtype, requires_grad=True),
    }
    mask = {"chosen": torch.tensor([[1.0, 1.0], [1.0, 0.0]]), "rejected": torch.tensor([[1.0, 0, 0], [1.0, 1, 1]])}
    reference = {
        "chosen": torch.tensor([[-2.0, -3.0], [-1.0, 0.0]], dtype=dtype),
        "rejected": torch.tensor([[-1.0, 0.0, 0.0], [-4.0, -5.0, -4.0]], dtype=dtype),
    }
    return outputs, Batch(mask=mask, reference=reference)


def swapped(outputs, batch):
    """The same pairs the other way round."""

    def other(sides):
        return {"chosen": sides["rejected"], "rejected": sides["chosen"]} if sides else {}

    columns = {"probability": 1 - batch.columns["probability"]} if batch.columns else {}
    return other(outputs), Batch(mask=other(batch.mask), reference=other(batch.reference), columns=columns)
