"""Sampling: the right distribution, log-probs of a plain forward, and draws that depend on their names only."""

import math
from collections import Counter
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_model
import torch
from scipy.stats import chisquare
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy_task import prompts
from transformers import Gemma2Config, Gemma2ForCausalLM, MistralConfig, MistralForCausalLM

from alignarena.core.contract import Sampling
from alignarena.harness import blocks, decoding, rollout, sampler
from alignarena.harness.attention import BLOCKS
from alignarena.harness.backbone import Backbone
from alignarena.harness.decoding import Prefill
from alignarena.harness.device import with_float64
from alignarena.harness.draw import choose
from alignarena.harness.sampler import Sample, sample, uniforms
from alignarena.harness.tokens import TokenSequence
from alignarena.harness.weights import BASE

LENGTH = 12


@pytest.fixture
def backbone(tiny_backbone: Backbone) -> Iterator[Backbone]:
    tiny_model.disturb(tiny_backbone, "one", seed=1)
    yield tiny_backbone
    tiny_backbone.drop("one")


def draw(
    backbone: Backbone, rows: list[dict[str, Any]], n: int | list[int], *, seed: int = 0, stream: str = "s",
    adapter: str = BASE, length: int = LENGTH, **sampling: Any,
) -> list[list[Sample]]:  # fmt: skip
    counts = n if isinstance(n, list) else [n] * len(rows)
    numbers = [uniforms(seed, stream, row["prompt_id"], k, length) for row, k in zip(rows, counts, strict=True)]
    return sample(backbone, adapter, [backbone.tokens.prompt_of(row) for row in rows], numbers, Sampling(**sampling))


def ids(samples: list[list[Sample]]) -> list[list[tuple[int, ...]]]:
    return [[one.completion for one in group] for group in samples]


@pytest.mark.parametrize("adapter", [BASE, "one"])
@pytest.mark.parametrize("sampling", [{}, {"temperature": 0.7, "top_p": 0.9}, {"temperature": 0.0}])
def test_logps_are_those_of_a_plain_forward(backbone: Backbone, adapter: str, sampling: dict[str, float]) -> None:
    rows = prompts().to_list()
    for row, group in zip(rows, draw(backbone, rows, 3, adapter=adapter, **sampling), strict=True):
        for one in group:
            sequence = TokenSequence(backbone.tokens.prompt_of(row), one.completion)
            with torch.no_grad():
                plain = tiny_model.plain_logps(backbone, adapter, sequence)
            assert one.logps == pytest.approx(plain.tolist(), abs=1e-4)


@pytest.mark.parametrize("least", [1, 10**6])  # kept once for all completions too, or only prefilled once
def test_what_all_prompts_begin_with_is_computed_once_and_changes_nothing(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch, least: int
) -> None:
    monkeypatch.setattr(decoding, "_APART", least)
    rows = [{**row, "prompt": f"one two three four five six seven {row['prompt']}"} for row in prompts().to_list()]
    asked = [backbone.tokens.prompt_of(row) for row in rows]
    monkeypatch.setattr(blocks, "_SAVES", 10**6)
    counts = [1 + i % 3 for i in range(len(rows))]
    apart = draw(backbone, rows, counts, adapter="one")
    assert Prefill(asked, torch.device("cpu")).input_ids.numel() == sum(map(len, asked))
    monkeypatch.setattr(blocks, "_SAVES", 1)
    prefill = Prefill(asked, torch.device("cpu"))
    assert prefill.prefix >= 7
    assert prefill.input_ids.numel() == sum(map(len, asked)) - 7 * prefill.prefix
    together = draw(backbone, rows, counts, adapter="one")
    assert ids(together) == ids(apart)
    for group, others in zip(together, apart, strict=True):
        for one, other in zip(group, others, strict=True):
            assert one.logps == pytest.approx(other.logps, abs=1e-4)


def test_a_completion_depends_on_its_name_only(backbone: Backbone) -> None:
    rows = prompts().to_list()
    together = ids(draw(backbone, rows, 4))
    assert ids(draw(backbone, rows[::-1], 4))[::-1] == together
    assert [ids(draw(backbone, [row], 4))[0] for row in rows] == together
    assert [group[:2] for group in together] == ids(draw(backbone, rows, 2))
    shorter = ids(draw(backbone, rows, 4, length=5))
    assert shorter == [[completion[:5] for completion in group] for group in together]


def test_ragged_numbers_of_completions(backbone: Backbone) -> None:
    rows = prompts(3).to_list()
    together = ids(draw(backbone, rows, 4))
    assert ids(draw(backbone, rows, [1, 4, 2])) == [together[0][:1], together[1], together[2][:2]]


def test_small_batches_draw_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows, seen = prompts().to_list(), []
    together = ids(draw(backbone, rows, 4))
    numbers = [uniforms(0, "s", row["prompt_id"], 4, LENGTH) for row in rows]
    monkeypatch.setattr(backbone, "config", tiny_model.config(backbone.config.model_name_or_path, tokens_per_batch=4))
    apart = sample(backbone, BASE, [backbone.tokens.prompt_of(row) for row in rows], numbers, Sampling(),
                   lambda count, tokens: seen.append((count, tokens)))  # fmt: skip
    assert ids(apart) == together
    assert [count for count, _ in seen] == [1] * 8
    assert sum(tokens for _, tokens in seen) == sum(len(one) for group in together for one in group)


def test_tokens_drawn_by_a_few_rows_are_those_drawn_at_once(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = draw(backbone, prompts().to_list(), 4)
    monkeypatch.setattr(rollout, "_ROWS", 7)
    monkeypatch.setattr(rollout, "_IN_CACHE", 1)  # one row a time
    assert ids(draw(backbone, prompts().to_list(), 4)) == ids(together)


def test_streams_seeds_and_samples_differ(backbone: Backbone) -> None:
    rows = prompts().to_list()
    one = ids(draw(backbone, rows, 2))
    assert all(first != second for first, second in one)
    assert one != ids(draw(backbone, rows, 2, stream="t"))
    assert one != ids(draw(backbone, rows, 2, seed=1))


def test_a_completion_ends_at_its_first_eos_or_at_the_limit(backbone: Backbone) -> None:
    rows = prompts().to_list()
    eos, found = backbone.tokens.eos_id, [one for group in draw(backbone, rows, 40) for one in group]
    ended = [one for one in found if eos in one.completion]
    assert len(ended) > 3
    assert {len(one.completion) for one in ended} - {LENGTH}  # some end early
    assert all(one.completion.index(eos) == len(one.completion) - 1 for one in ended)
    assert all(len(one.completion) == LENGTH for one in found if eos not in one.completion)
    assert all(len(one.logps) == len(one.completion) for one in found)


def skewed(width: int, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shared", [True, False])
def test_rows_that_end_leave_the_others_as_they_were(
    shared: bool, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backbone, "shares_prompts", shared)
    monkeypatch.setattr(backbone.weights.activate(BASE).config, "_attn_implementation", BLOCKS if shared else "sdpa")
    rows, counts = prompts().to_list(), [5, 3, 7, 1]
    drawn = draw(backbone, rows[:4], counts, length=40)
    often = Counter(token for group in drawn for one in group for token in one.completion).most_common(1)[0][0]
    monkeypatch.setattr(backbone.tokens, "eos_id", often)
    monkeypatch.setattr(sampler, "_SHRINK_AT", 2.0)  # of the rows: never
    expected = draw(backbone, rows[:4], counts, length=40)
    monkeypatch.setattr(sampler, "_SHRINK_AT", 0.0)  # whenever one has ended
    found = draw(backbone, rows[:4], counts, length=40)
    assert ids(found) == ids(expected)
    assert len({len(one.completion) for group in found for one in group}) > 4
    for one, other in zip(chain.from_iterable(found), chain.from_iterable(expected), strict=True):
        assert one.logps == pytest.approx(other.logps, abs=1e-5)


def test_few_rows_move_when_others_end() -> None:
    running = torch.tensor([True, False, True, True, False, True, False, True])
    assert sampler._closed_up(running).tolist() == [0, 5, 2, 3, 7]
    assert sampler._closed_up(torch.tensor([False, True])).tolist() == [1]


@pytest.mark.parametrize("width", [7, 256, 700])  # within one block of the vocabulary, exactly one, several
@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_tokens_follow_the_tempered_distribution(width: int, temperature: float) -> None:
    logits, count = skewed(width), 20_000
    numbers = torch.tensor(np.random.default_rng(0).random(count))
    tokens, logps = choose(logits.repeat(count, 1), numbers, Sampling(temperature=temperature))
    probs = torch.softmax(logits.double() / temperature, 0).numpy()
    counts = np.bincount(tokens.numpy(), minlength=width)
    likely = probs * count >= 5
    observed, expected = ([*x[likely], x[~likely].sum()] for x in (counts, probs * count))
    if expected[-1] == 0:
        observed, expected = observed[:-1], expected[:-1]
    assert chisquare(observed, expected).pvalue > 1e-3
    assert torch.allclose(logps, logits.log_softmax(0)[tokens], atol=1e-5)  # untempered, whatever was drawn from


def test_the_nucleus_is_the_smallest_set_with_that_mass() -> None:
    probs = torch.tensor([0.1, 0.4, 0.05, 0.3, 0.15])
    numbers = torch.tensor(np.random.default_rng(0).random(20_000))
    tokens, _ = choose(probs.log().expand(len(numbers), -1), numbers, Sampling(top_p=0.6))
    counts = np.bincount(tokens.numpy(), minlength=5)
    assert counts[[0, 2, 4]].sum() == 0
    assert chisquare(counts[[1, 3]], np.array([4, 3]) / 7 * 20_000).pvalue > 1e-3
    narrowest, _ = choose(probs.log().expand(len(numbers), -1), numbers, Sampling(top_p=0.01))
    assert set(narrowest.tolist()) == {1}


def test_temperature_0_is_greedy_and_extreme_numbers_stay_in_the_vocabulary() -> None:
    logits = torch.stack([skewed(300, seed) for seed in range(4)])
    numbers = torch.tensor([0.0, 0.3, 0.999, 1 - 2**-53], dtype=torch.float64)
    greedy, _ = choose(logits, numbers, Sampling(temperature=0.0))
    assert torch.equal(greedy, logits.argmax(1))
    logits[:, 250:] = -torch.inf  # nothing beyond is possible, nor before
    logits[:, :10] = -torch.inf
    tokens, logps = choose(logits.clone(), numbers, Sampling())
    assert ((tokens >= 10) & (tokens < 250)).all()
    assert torch.isfinite(logps).all()


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.7, top_p=0.9, top_k=3)])
def test_a_device_without_float64_leaves_the_draw_to_that_of_the_numbers(sampling: Sampling) -> None:
    with FakeTensorMode(), Float64Refused("mps"):
        tokens, logps = choose(torch.empty(2, 300, device="mps"), torch.empty(2, dtype=torch.float64), sampling)
    assert (tokens.device.type, logps.device.type, logps.dtype) == ("mps", "mps", torch.float32)


class Float64Refused(TorchDispatchMode):
    """Lets no operation give a float64 tensor on a kind of device."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            refused = isinstance(tensor, torch.Tensor) and tensor.dtype == torch.float64
            assert not (refused and tensor.device.type == self.kind), func
        return result


def test_numbers_lie_where_there_is_float64(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    assert with_float64(torch.device("mps")) == torch.device("cpu")
    assert with_float64(torch.device("cuda", 1)) == torch.device("cuda", 1)
    seen = []

    def ends(self: Any, numbers: torch.Tensor, sampling: Sampling) -> tuple[torch.Tensor, torch.Tensor]:
        seen.append((numbers.device.type, numbers.dtype))
        return torch.full(numbers.shape, backbone.tokens.eos_id), torch.zeros(numbers.shape)

    monkeypatch.setattr(rollout.Rollout, "choose", ends)
    monkeypatch.setattr(sampler, "with_float64", lambda device: torch.device("meta"))
    assert ids(draw(backbone, prompts(1).to_list(), 3)) == [[(backbone.tokens.eos_id,)] * 3]
    assert seen == [("meta", torch.float64)]


def test_a_model_that_bends_its_logits_samples_what_it_scores(tmp_path: Path) -> None:
    folder = tiny_model.save(
        tmp_path, config=Gemma2Config, model=Gemma2ForCausalLM, final_logit_softcapping=2.0, head_dim=8
    )
    bent = Backbone(tiny_model.config(folder))
    assert not bent.plain_head
    assert_sampled_as_scored(bent, LENGTH)


@pytest.mark.parametrize("beginning", ["", "one two three four "])  # of all prompts, its keys kept once
def test_a_sliding_window_hides_the_same_keys_as_in_a_plain_forward(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, beginning: str
) -> None:
    monkeypatch.setattr(decoding, "_APART", 1)
    folder = tiny_model.save(tmp_path, config=MistralConfig, model=MistralForCausalLM, sliding_window=6)
    sliding = Backbone(tiny_model.config(folder))
    assert (sliding.form, sliding.shares_prompts) == ("blocks", True)
    plain = MistralForCausalLM.from_pretrained(folder)
    rows = [{**row, "prompt": beginning + row["prompt"]} for row in prompts().to_list()]
    for row, group in zip(rows, draw(sliding, rows, 2), strict=True):
        for one in group:
            prompt = sliding.tokens.prompt_of(row)
            ids_of = torch.tensor([[*prompt, *one.completion]])
            with torch.no_grad():
                expected = plain(input_ids=ids_of).logits[0, len(prompt) - 1 : -1].log_softmax(-1)
            assert one.logps == pytest.approx(
                expected.gather(1, ids_of[0, len(prompt) :, None])[:, 0].tolist(), abs=1e-4
            )


def test_the_plain_path_draws_the_same(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = prompts().to_list()
    fast = ids(draw(backbone, rows, 3))
    monkeypatch.setattr(backbone, "shares_prompts", False)
    model = backbone.weights.activate(BASE)
    model.set_attn_implementation("sdpa")
    try:
        assert ids(draw(backbone, rows, 3)) == fast
    finally:
        model.set_attn_implementation(BLOCKS)


def test_top_k_keeps_the_most_probable() -> None:
    probs = torch.tensor([[0.1, 0.4, 0.2, 0.3]])
    numbers = (torch.arange(7_000, dtype=torch.float64) + 0.5) / 7_000
    tokens, logps = choose(probs.log().repeat(len(numbers), 1), numbers, Sampling(top_k=2))
    assert torch.bincount(tokens, minlength=4).tolist() == [0, 4_000, 0, 3_000]
    assert logps[0].item() == pytest.approx(math.log(0.4), abs=1e-6)  # of the distribution before the cut


def test_completions_longer_than_the_room_of_the_cache(backbone: Backbone) -> None:
    assert_sampled_as_scored(backbone, 90)


def assert_sampled_as_scored(backbone: Backbone, length: int) -> None:
    rows = prompts().to_list()
    groups, lengths = draw(backbone, rows, 4, length=length), set()
    for row, group in zip(rows, groups, strict=True):
        for one in group:
            sequence = TokenSequence(backbone.tokens.prompt_of(row), one.completion)
            with torch.no_grad():
                assert one.logps == pytest.approx(tiny_model.plain_logps(backbone, BASE, sequence).tolist(), abs=1e-4)
            lengths.add(len(one.completion))
    assert max(lengths) == length
    assert len(lengths) > 1  # some rows left the batch before the others
