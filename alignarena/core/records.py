"""The ledger a cell is charged by, and the budget that ends it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from alignarena.core.errors import BadInput, nearest


@dataclass(frozen=True)
class Ledger:
    """What some work cost. Counts add up; peak memory takes the larger."""

    prompts: int = 0  # prompts sampled from
    completions: int = 0  # completions sampled
    sampled_tokens: int = 0  # tokens generated
    trained_tokens: int = 0  # tokens through forward and backward
    scored_tokens: int = 0  # tokens through a forward only: prompts prefilled, reward, reference, values
    labels: float = 0.0  # comparisons asked of the annotator; a ranking of K counts log2(K!)
    labeler_calls: int = 0  # calls of the AI labeler or judge
    optimizer_steps: int = 0
    flops: float = 0.0  # 2N a forward token, 6N a trained token
    seconds: float = 0.0  # wall clock of the work when it was really done
    peak_memory_mib: float = 0.0  # largest resident or device memory while it ran

    def __add__(self, other: Ledger) -> Ledger:
        """Add counts; keep the larger peak."""
        sums = {f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)}
        return Ledger(**{**sums, "peak_memory_mib": max(self.peak_memory_mib, other.peak_memory_mib)})

    def __sub__(self, other: Ledger) -> Ledger:
        """Subtract counts; keep the peak."""
        left = {f.name: getattr(self, f.name) - getattr(other, f.name) for f in fields(self)}
        return Ledger(**{**left, "peak_memory_mib": self.peak_memory_mib})

    def times(self, factor: float) -> Ledger:
        """Multiply counts, those of whole things rounded; keep the peak."""
        counts = {f.name: getattr(self, f.name) * factor for f in fields(self)}
        whole = {f.name: round(counts[f.name]) for f in fields(self) if isinstance(f.default, int)}
        return Ledger(**{**counts, **whole, "peak_memory_mib": self.peak_memory_mib})

    def to_dict(self) -> dict[str, float]:
        """Return the counts as plain numbers."""
        return asdict(self)

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> Ledger:
        """Read counts written by :meth:`to_dict`, ignoring what this version does not know."""
        known = {f.name for f in fields(cls)}
        return cls(**{name: value for name, value in counts.items() if name in known})


OF_FITS = frozenset({"trained_tokens", "flops", "seconds"})  # the limits that end one
OF_SAMPLING = OF_FITS | {"completions", "sampled_tokens"}  # samples that nothing may be learnt from are not drawn


@dataclass(frozen=True)
class Budget:
    """What a cell may spend, in the counts of its ledger. ``None`` is no limit.

    A limit ends the work that adds to its count: whoever may buy no more labels still learns from those bought.
    """

    track: str = "labels"  # which count is held equal between methods: labels | compute
    labels: float | None = None
    completions: int | None = None
    sampled_tokens: int | None = None
    trained_tokens: int | None = None
    labeler_calls: int | None = None
    flops: float | None = None
    seconds: float | None = None

    def used_up(self, ledger: Ledger, counts: Collection[str] | None = None) -> str | None:
        """Return the name of the first limit, of all or of these counts, that the ledger reaches, else ``None``."""
        for name, limit in self.limits().items():
            if (counts is None or name in counts) and getattr(ledger, name) >= limit:
                return name
        return None

    def limits(self) -> dict[str, float]:
        """Return the limits that are set."""
        named = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "track"}
        return {name: limit for name, limit in named.items() if limit is not None}

    def scaled(self, fraction: float) -> Budget:
        """Return a budget with every limit multiplied by a fraction (the arms of a chain)."""
        return Budget(track=self.track, **{name: limit * fraction for name, limit in self.limits().items()})  # type: ignore[arg-type]

    def __post_init__(self) -> None:
        """Check the track.

        Raises:
            BadInput: The track is not one of the two.
        """
        if self.track not in ("labels", "compute"):
            raise BadInput(f"budget.track: {self.track!r}{nearest(self.track, ('labels', 'compute'))}")
