"""EleutherAI's lm-eval as a library (extra ``lm-eval``): any of its tasks, or a task file, asked of a policy.

Contexts are one user turn of the chat template, and a continuation begins the answer, so the space before it is
dropped. Work goes through the lab: batched, metered and cached like all other.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from datasets import Dataset

from alignarena.core.contract import Lab, Policy, Sampling
from alignarena.core.errors import BadInput
from alignarena.evaluators.evidence import Evidence, Measures, Row
from alignarena.evaluators.likelihood import Likelihood

_LONGEST = 256  # tokens generated, where a task does not say


def measure(task: str, evidence: Evidence) -> Iterable[tuple[Row, Measures]]:
    """Yield every metric that lm-eval gives for each document of a task.

    Args:
        task: A name known to lm-eval, or the path of a task's YAML file.
        evidence: The policy; one without log-probs has only tasks that generate.

    Raises:
        BadInput: lm-eval is not installed, has no such task, or asks what the policy cannot answer.
    """
    try:
        from lm_eval import simple_evaluate
    except ImportError:
        raise BadInput("lm_eval: not installed; pip install 'alignarena[lm-eval]'") from None
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    given: Any = _read(Path(task)) if task.endswith((".yaml", ".yml")) else task
    try:
        found = simple_evaluate(_language_model(evidence), tasks=[given], bootstrap_iters=0, log_samples=True)
    except (KeyError, ValueError) as error:
        raise BadInput(f"lm_eval: cannot run {task!r}: {error}") from None
    yield from _measures(found)


def _measures(found: Any) -> Iterator[tuple[Row, Measures]]:
    for name, samples in found["samples"].items():
        for sample in samples:
            prompt_id = f"{name}/{sample['doc_id']}"
            values: Measures = {f"{name}_{metric}": float(sample[metric]) for metric in sample.get("metrics", ())
                                if isinstance(sample.get(metric), int | float)}  # fmt: skip
            yield {"prompt_id": prompt_id, "cluster": prompt_id, "sample": 0}, values


def _read(path: Path) -> dict[str, Any]:
    """Return a task file as lm-eval takes it, its data beside it: lm-eval itself looks where it was started."""
    try:
        config: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
        files = config.get("dataset_kwargs", {}).get("data_files", {})
        beside = {split: str(path.resolve().parent / file) for split, file in files.items()}
    except (OSError, yaml.YAMLError, AttributeError) as error:
        raise BadInput(f"lm_eval: {path} is no task file: {error}") from None
    settings = {**config.get("dataset_kwargs", {}), **({"data_files": beside} if beside else {})}
    return {**config, "dataset_kwargs": settings}


def _language_model(evidence: Evidence) -> Any:
    """Return a policy as lm-eval's language model."""
    from lm_eval.api.model import LM

    class LabModel(LM):  # type: ignore[misc]  # untyped; here, since its base may not be installed
        def loglikelihood(self, requests: list[Any]) -> list[tuple[float, bool]]:
            _check_choices(requests)
            return [(one, False) for one in _logps(evidence.lab, evidence.policy, [each.args for each in requests])]

        def loglikelihood_rolling(self, requests: list[Any]) -> list[float]:
            raise BadInput("lm_eval: perplexity tasks are not supported: a policy answers prompts")

        def generate_until(self, requests: list[Any]) -> list[str]:
            return _generated(evidence.lab, evidence.policy, [each.args for each in requests])

    return LabModel()


def _check_choices(requests: list[Any]) -> None:
    """Refuse tasks that ask whether one text is what the policy would greedily say: the lab does not tell that."""
    of_document = Counter((one.task_name, one.doc_id) for one in requests)
    if min(of_document.values()) < 2:
        raise BadInput("lm_eval: tasks of one continuation a document are not supported; choose one with choices")


def _logps(lab: Lab, policy: Any, asked: list[tuple[str, str]]) -> list[float]:
    if not hasattr(policy, "logps"):
        raise BadInput(f"lm_eval: {type(policy).__name__} has no log-probs; choose a task that generates")
    rows = [{"prompt_id": str(place), "prompt": context, "completion": continuation.lstrip()}
            for place, (context, continuation) in enumerate(asked)]  # fmt: skip
    return list(lab.score(Dataset.from_list(rows), Likelihood(policy))["score"][:])


def _generated(lab: Lab, policy: Policy, asked: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """Return the likeliest answers, up to what a task wants them cut at."""
    lengths = [int(settings.get("max_gen_toks", _LONGEST)) for _, settings in asked]
    texts: dict[int, str] = {}
    for longest in sorted(set(lengths)):
        places = [place for place, length in enumerate(lengths) if length == longest]
        rows = Dataset.from_list([{"prompt_id": str(place), "prompt": asked[place][0]} for place in places])
        greedy = Sampling(max_new_tokens=longest, temperature=0.0)
        answers = lab.sample(policy, rows, stream="lm_eval", sampling=greedy)["completion"][:]
        texts |= dict(zip(places, answers, strict=True))
    return [_cut(texts[place], settings.get("until") or []) for place, (_, settings) in enumerate(asked)]


def _cut(text: str, stops: str | list[str]) -> str:
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.partition(stop)[0] if stop else text
    return text
