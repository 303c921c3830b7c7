"""Do rows and a loss fit together? The loss is called on them with random log-probs, as a trainer would."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from alignarena.core.contract import Batch, Loss, Rows

if TYPE_CHECKING:
    from torch import Tensor

_NEEDS = {"reference", "old", "values"}


def require(holds: bool, message: str) -> None:
    """Raise unless the contract holds.

    Raises:
        AssertionError: It does not.
    """
    if not holds:
        raise AssertionError(message)


def check_loss(rows: Rows, loss: Loss, scores: bool) -> None:
    """Call a loss on rows: they hold what it reads, and it returns one finite number a row.

    Args:
        rows: The rows of a fit.
        loss: The loss; it is given only what ``needs`` and ``columns`` declare.
        scores: Whether its outputs are scores (B,) of a reward model, else log-probs (B, T).

    Raises:
        AssertionError: It misses a column, uses what it does not declare, or returns another shape.
    """
    import torch

    name = type(loss).__name__
    wanted = {"prompt_id", *loss.columns, *(column for pair in loss.reads.values() for column in pair)}
    missing = sorted(wanted - set(rows.column_names))
    require(not missing, f"{name}: no column {', '.join(missing)}; the rows have {', '.join(rows.column_names)}")
    require(len(rows) > 0, f"{name}: no rows")
    require(set(loss.needs) <= _NEEDS, f"{name}.needs: {set(loss.needs) - _NEEDS} is not among {_NEEDS}")
    require(loss.per in ("row", "token"), f"{name}.per: {loss.per!r} is neither 'row' nor 'token'")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        batch = _batch(rows, loss)
        outputs = {key: -torch.rand(mask.shape[:-1] if scores else mask.shape) for key, mask in batch.mask.items()}
        try:
            batch.prepared.update(loss.prepare(batch, {}))
            values, metrics = loss(outputs, batch)
        except KeyError as error:
            raise AssertionError(f"{name} uses {error}, which it declares in neither needs nor columns") from error
    for key, value in {"the loss": values, **metrics}.items():
        shape = tuple(value.shape)
        require(shape == (len(rows),), f"{name}: {key} has shape {shape}, not one number for each of {len(rows)} rows")
        require(bool(torch.isfinite(value).all()), f"{name}: {key} is not finite")


def _batch(rows: Rows, loss: Loss) -> Batch:
    import torch

    mask = {key: _mask(rows[completion][:]) for key, (_, completion) in loss.reads.items()}

    def given(need: str) -> dict[str, Tensor]:
        return {key: -torch.rand(one.shape) for key, one in mask.items()} if need in loss.needs else {}

    stops = [reason == "stop" for reason in rows["finish_reason"][:]] if "finish_reason" in rows.column_names else None
    finished = {
        key: torch.ones(one.shape[:-1], dtype=torch.bool) if stops is None else torch.tensor(stops)
        for key, one in mask.items()
    }
    return Batch(
        mask=mask,
        finished=finished,
        reference=given("reference"),
        old=given("old"),
        values=given("values"),
        old_values=given("values"),
        columns={column: _numbers(column, rows[column][:]) for column in loss.columns},
    )


def _mask(completions: Any) -> Tensor:
    """Return (B, T), or (B, K, T) for lists of completions: 1 where a word is."""
    import torch

    lengths = _numbers("completion", [_lengths(one) for one in completions])
    words = torch.arange(max(1, int(lengths.max())))
    return (words < lengths[..., None]).float()


def _lengths(completion: Any) -> Any:
    return [len(one.split()) for one in completion] if isinstance(completion, list) else len(completion.split())


def _numbers(column: str, values: Any) -> Tensor:
    """Return (B,), or (B, K) padded with 0 for lists."""
    import torch

    rows = list(values)
    try:
        if rows and isinstance(rows[0], list):
            longest = max(map(len, rows))
            rows = [[*row, *[0.0] * (longest - len(row))] for row in rows]
        numbers = torch.tensor(rows, dtype=torch.float32)
    except (TypeError, ValueError) as error:
        raise AssertionError(f"column {column!r} does not hold numbers: {error}") from error
    require(not math.isnan(float(numbers.sum())), f"column {column!r} holds NaN")
    return numbers
