"""Reference log-probs: computed once, kept on disk, the same for every fit that reads the same sequences."""

from collections.abc import Iterator

import pytest
import tiny_model
import torch

from alignarena.harness import passes
from alignarena.harness.backbone import Backbone
from alignarena.harness.cache import Cache
from alignarena.harness.meter import Meter
from alignarena.harness.passes import Part, References
from alignarena.harness.tokens import TokenSequence

SEQUENCES = [TokenSequence((5, 6, 7 + i % 3), (9 + i, 10, 11)[: 1 + i % 3]) for i in range(12)]
CUT = [SEQUENCES[:5], SEQUENCES[5:]]


@pytest.fixture
def references(tiny_backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Iterator[References]:
    tiny_model.disturb(tiny_backbone, "start", seed=1)
    yield References(tiny_backbone, Cache(tmp_path_factory.mktemp("references")), "digest of the start")
    tiny_backbone.drop("start")


def parts(references: References) -> list[Part]:
    return [Part(references.backbone, sequences) for sequences in CUT]


def test_they_are_plain_logps_found_again_at_the_same_price(
    references: References, monkeypatch: pytest.MonkeyPatch
) -> None:
    cold, warm = Meter(), Meter()
    first = references.logps("start", parts(references), cold, keep=True)
    for sequence in SEQUENCES:
        with torch.no_grad():
            plain = tiny_model.plain_logps(references.backbone, "start", sequence)
        torch.testing.assert_close(first[sequence], plain, atol=1e-5, rtol=1e-5)
    monkeypatch.setattr(passes, "computed", None)  # what is on disk needs no pass
    again = references.logps("start", parts(references), warm, keep=True)
    assert all(torch.equal(first[sequence], again[sequence]) for sequence in SEQUENCES)
    assert cold.ledger.scored_tokens == warm.ledger.scored_tokens > 0
    assert cold.ledger.flops == warm.ledger.flops
    assert warm.ledger.seconds > 0


def test_another_start_other_rows_and_another_layout_are_computed(references: References) -> None:
    first = references.logps("start", parts(references), Meter(), keep=True)
    another = References(references.backbone, references.cache, "another")
    other = another.logps("base", parts(references), Meter(), keep=True)
    assert not torch.equal(first[SEQUENCES[0]], other[SEQUENCES[0]])
    assert set(references.logps("start", parts(references)[:1], Meter(), keep=True)) == set(CUT[0])
    references.logps("start", parts(references)[::-1], Meter(), keep=True)
    assert len(list(references.cache.root.iterdir())) == 4


def test_rollouts_are_not_kept(references: References) -> None:
    references.logps("start", parts(references), Meter(), keep=False)
    assert not list(references.cache.root.glob("*"))
