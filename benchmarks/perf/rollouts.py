"""n completions a prompt side by side with ``transformers.generate``; no completion may end early on either side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from peft import get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, GenerationConfig

from alignarena.benchmarks.perf import theirs
from alignarena.benchmarks.perf.alternation import take_turns
from alignarena.benchmarks.perf.bench import Bench
from alignarena.benchmarks.perf.entry import Entry, Equality, absolute, of_seconds
from alignarena.benchmarks.perf.ours import never_ending
from alignarena.benchmarks.perf.terms import SEED, Settings, Terms
from alignarena.benchmarks.perf.work import Comparison
from alignarena.core.contract import Sampling
from alignarena.harness.backbone import Backbone
from alignarena.harness.sampler import Sample, sample, uniforms
from alignarena.harness.tokens import Ids
from alignarena.harness.weights import BASE

OPPONENT = "transformers.generate"
_POLICY, _STREAM = "policy", "rollouts"
_NOISE = 0.02  # of the adapter's second matrices: a new adapter changes nothing, and nothing could be checked


@dataclass(frozen=True)
class Way:
    """What ``generate`` leaves to its user and changes its speed, never its distribution."""

    attn_implementation: str = "sdpa"
    cache_implementation: str = "dynamic"
    merged: bool = False  # the adapter merged into the base before each call, and taken out after it

    def label(self) -> str:
        """Return it in words."""
        adapter = ", adapter merged" if self.merged else ""
        return f"{self.attn_implementation}, {self.cache_implementation} cache{adapter}"


def rollouts(bench: Bench, use_peft: bool) -> Entry:
    """Time draws of both sides by turns."""
    sizes = bench.sizes
    prompts = [one.prompt for one in bench.prompts(sizes.rollout_prompts)]
    terms = bench.terms(use_peft, len(prompts), 1, max_new_tokens=sizes.rollout_tokens)
    backbone, policy = policy_of(terms)
    way, tried = _fastest_way(bench, terms, backbone, prompts)
    opponent = Generator(terms, way, backbone, sizes.n)

    def ours() -> list[list[Sample]]:
        return draw(backbone, policy, prompts, sizes.n, sizes.rollout_tokens)

    turns = take_turns(ours, lambda: opponent(prompts, sizes.rollout_tokens), bench.repeats)
    policy_name = "LoRA policy" if use_peft else "plain policy"
    new = len(prompts) * sizes.n * sizes.rollout_tokens
    return of_seconds(
        *turns.counted, name="rollouts_n4", opponent=OPPONENT, unit="new tokens/s", amount=new * bench.repeats,
        work=f"{bench.dialogues.label}, {len(prompts)} prompts x {sizes.n} x {sizes.rollout_tokens} new tokens, "
        f"{policy_name}",
        equality=_checked(bench, use_peft), settings=way, tried=tried, precision=terms.precision,
        prompt_tokens=sum(map(len, prompts)),
    )  # fmt: skip


class Generator:
    """``generate`` on a model of its own, with the weights of our policy."""

    def __init__(self, terms: Terms, way: Way, backbone: Backbone, n: int) -> None:
        self.way, self.n = way, n
        settings = Settings(attn_implementation=way.attn_implementation)
        model = theirs.load(AutoModelForCausalLM, terms, settings, theirs.compute_type(terms)).eval()
        model.generation_config.eos_token_id = None  # none ends early, and nothing has to watch for it
        self.pad = model.generation_config.pad_token_id = theirs.tokenizer(terms).pad_token_id
        self.model = model if not terms.use_peft else _adapted(model, terms, backbone)

    def __call__(self, prompts: Sequence[Ids], length: int, greedy: bool = False) -> torch.Tensor:
        """Return new tokens (prompts x n, length), of a prompt one below the other; greedy ones once a prompt."""
        rows = [torch.tensor(ids) for ids in prompts]
        ids = pad_sequence(rows, batch_first=True, padding_value=self.pad, padding_side="left")
        mask = pad_sequence([torch.ones_like(row) for row in rows], batch_first=True, padding_side="left")
        drawing = {"do_sample": False} if greedy else {"do_sample": True, "num_return_sequences": self.n, "top_k": 0}
        static = {"cache_implementation": "static"} if self.way.cache_implementation == "static" else {}
        config = GenerationConfig(
            max_new_tokens=length, pad_token_id=self.pad, disable_compile=True, **drawing, **static
        )
        if self.way.merged:
            self.model.merge_adapter()
        with torch.no_grad():
            drawn = self.model.generate(
                input_ids=ids.to(self.model.device), attention_mask=mask.to(self.model.device), generation_config=config
            )
        if self.way.merged:
            self.model.unmerge_adapter()
        return drawn[:, ids.shape[1] :]  # type: ignore[no-any-return]


def policy_of(terms: Terms) -> tuple[Backbone, str]:
    """Return the base, or the base with an adapter that changes it."""
    backbone = Backbone(terms.config)
    if not terms.use_peft:
        return backbone, BASE
    backbone.add(_POLICY, BASE, seed=SEED)
    noise = torch.Generator().manual_seed(SEED)
    state = backbone.weights.state(_POLICY)
    drawn = {key: _NOISE * torch.randn(value.shape, generator=noise) for key, value in state.items() if "lora_B" in key}
    backbone.weights.set_state(_POLICY, {**state, **drawn})
    return backbone, _POLICY


def _adapted(model: Any, terms: Terms, backbone: Backbone) -> Any:
    adapted = get_peft_model(model, theirs.lora(terms, "CAUSAL_LM"), autocast_adapter_dtype=False)
    own = get_peft_model_state_dict(adapted)
    state = {key: value.to(own[key].dtype) for key, value in backbone.weights.state(_POLICY).items()}
    set_peft_model_state_dict(adapted, state)
    return adapted.eval()


def draw(
    backbone: Backbone, policy: str, prompts: Sequence[Ids], n: int, length: int, sampling: Sampling = Sampling()
) -> list[list[Sample]]:
    """Draw n completions a prompt of exactly some tokens from our side."""
    draws = [uniforms(SEED, _STREAM, str(i), n, length) for i in range(len(prompts))]
    with never_ending(backbone):
        return sample(backbone, policy, prompts, draws, sampling)


def _fastest_way(
    bench: Bench, terms: Terms, backbone: Backbone, prompts: Sequence[Ids]
) -> tuple[Way, dict[str, float]]:
    """Try the ways on a quarter of the new tokens."""
    length = max(2, bench.sizes.rollout_tokens // 4)
    seconds: dict[Way, float] = {}

    def best(ways: Sequence[Way]) -> Way:
        for way in ways:
            generator = Generator(terms, way, backbone, bench.sizes.n)
            seconds[way] = min(_timed(partial(generator, prompts, length)) for _ in range(2))
        return min(seconds, key=lambda way: seconds[way])

    chosen = best([Way(), Way("eager"), Way(cache_implementation="static")])
    if terms.use_peft:
        chosen = best([replace(chosen, merged=True)])
    return chosen, {way.label(): value for way, value in seconds.items()}


def _timed(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _checked(bench: Bench, use_peft: bool) -> list[Equality]:
    """Compare greedy tokens, and the log-probs of our samples under their model, in fp32."""
    length = min(12, bench.sizes.rollout_tokens)
    shortest = sorted(bench.prompts(bench.sizes.rollout_prompts), key=lambda one: (len(one.prompt), one.prompt))
    prompts = [one.prompt for one in shortest[: bench.sizes.check_rows]]
    terms = bench.terms(use_peft, len(prompts), 1, "fp32", max_new_tokens=length)
    backbone, policy = policy_of(terms)
    opponent = Generator(terms, Way(), backbone, bench.sizes.n)
    greedy = [float(token) for one in draw(backbone, policy, prompts, 1, length, Sampling(temperature=0.0))
              for token in one[0].completion]  # fmt: skip
    opposite_greedy = opponent(prompts, length, greedy=True).flatten().tolist()
    drawn = [(prompt, one) for prompt, group in zip(prompts, draw(backbone, policy, prompts, 2, length), strict=True)
             for one in group]  # fmt: skip
    ours = [logp for _, one in drawn for logp in one.logps]
    opposite = [logp for prompt, one in drawn for logp in _logps(opponent.model, Comparison(prompt, (one.completion,)))]
    return [
        absolute("greedy tokens in fp32", greedy, opposite_greedy, 0.0),
        absolute("log-probs in fp32 of our samples under their model, nats", ours, opposite, 1e-3),
    ]


@torch.no_grad()
def _logps(model: Any, one: Comparison) -> list[float]:
    (completion,) = one.completions
    ids = torch.tensor([[*one.prompt, *completion]], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(one.prompt) - 1 : -1].float()
    return logits.log_softmax(-1).gather(1, ids[0, len(one.prompt) :, None])[:, 0].tolist()  # type: ignore[no-any-return]
