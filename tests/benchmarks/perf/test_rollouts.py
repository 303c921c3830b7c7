import pytest
import torch

from alignarena.benchmarks.perf import rollouts
from alignarena.benchmarks.perf.rollouts import Generator, Way, policy_of


@pytest.mark.parametrize("use_peft", [False, True])
def test_side_by_side(new_bench, use_peft):
    entry = rollouts.rollouts(new_bench(), use_peft)
    assert entry.equal, entry.equality
    assert len(entry.details["tried"]) == (4 if use_peft else 3)
    new = 2 * 2 * 4 * 2  # prompts x n x tokens x repeats
    assert entry.ours == pytest.approx(new / sum(entry.details["our_seconds"]))


def test_other_weights_are_not_equal(new_bench, monkeypatch):
    class Disturbed(Generator):
        def __init__(self, *given):
            super().__init__(*given)
            with torch.no_grad():
                self.model.get_input_embeddings().weight.add_(0.5)

    monkeypatch.setattr(rollouts, "Generator", Disturbed)
    assert not rollouts.rollouts(new_bench(), False).equal


def test_no_completion_ends_early(new_bench):
    bench = new_bench()
    terms = bench.terms(False, 2, 1, max_new_tokens=6)
    backbone, policy = policy_of(terms)
    prompts = [one.prompt for one in bench.prompts(2)]
    drawn = rollouts.draw(backbone, policy, prompts, 8, 6)
    assert {len(one.completion) for group in drawn for one in group} == {6}
    assert backbone.tokens.eos_id == 1  # as it was
    assert Generator(terms, Way(), backbone, 8)(prompts, 6).shape == (16, 6)
