"""A model card: what a policy is, what it was made from, what it cost and how it did, for people and for the Hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import yaml

from alignarena.core.files import read_json
from alignarena.core.model import HUB_NAMES
from alignarena.core.text import MARKDOWN, printable
from alignarena.results import stats
from alignarena.results.cell_means import cell_means, known_scores
from alignarena.results.cells import Cell
from alignarena.results.frame import BASELINE, paired_by_prompt
from alignarena.results.store import RunFolder

Form = Literal["stored", "adapter", "model"]  # beside a cell, or as it was exported
_LICENCES = {"smollm2-135m-instruct": "apache-2.0"}  # of what a policy inherits, where it is known
_ON_THE_HUB = {"hh-rlhf": "Anthropic/hh-rlhf"}  # datasets by their names in a suite
_CODE = {
    "model": """    from transformers import AutoModelForCausalLM, AutoTokenizer
    tokenizer = AutoTokenizer.from_pretrained("DIR")
    model = AutoModelForCausalLM.from_pretrained("DIR")""",
    "adapter": """    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer, GenerationConfig
    tokenizer = AutoTokenizer.from_pretrained("DIR")
    model = AutoPeftModelForCausalLM.from_pretrained("DIR")
    model.generation_config = GenerationConfig.from_pretrained("DIR")""",
}
_VERDICTS = ("gold", "win")  # what a policy's difference to SFT is told of


def model_card(folder: RunFolder, method: str, seed: int, form: Form = "stored") -> str:
    """Return the card of a cell's policy: YAML front matter as the Hub reads it, then Markdown.

    Args:
        folder: The run; the cell's files are there, its mark may not be yet.
        method: The cell's method.
        seed: Its seed.
        form: Whether the policy lies beside its cell, or was exported as an adapter or a model.
    """
    cell = folder.read_cell(method, seed)
    card = (folder.provenance.get("methods") or {}).get(method) or {}
    means = dict(cell_means(_suite_name(folder), cell))
    sections = {
        "": f"{_plain(card.get('summary', ''))}\n\nPaper: {_plain(card.get('paper') or 'none')}",
        "How to load it": _loading(form, folder, cell),
        "Data": _data(folder.suite),
        "Method and hyper-parameters": _indented(dict(cell.config) or {"hyper-parameters": "none"}),
        "Budget charged": _charged(cell),
        "Results": _results(folder, cell, means),
        "Differs from the paper": _plain(card.get("differs") or "not stated"),
        "Versions": _indented(folder.provenance.get("versions") or {}),
        "To reproduce": _reproduce(folder, cell),
    }
    body = [f"# {_plain(f'{method} on {_suite_name(folder)}, seed {seed}')}"]
    body += [f"## {title}\n\n{text}" if title else text for title, text in sections.items()]
    front = _front_matter(folder, cell, card, form) | _index(folder, cell, means)
    return f"---\n{_yaml(front)}---\n\n" + "\n\n".join(body) + "\n"


def _front_matter(folder: RunFolder, cell: Cell, card: Mapping[str, Any], form: Form) -> dict[str, Any]:
    base, name = _base(folder), _base_name(folder)
    adapter = form == "adapter" or (form == "stored" and folder.suite.get("model", {}).get("use_peft", True))
    paper = re.fullmatch(r"arXiv:(\S+)", str(card.get("paper", "")))
    dataset = (folder.suite.get("data") or {}).get("dataset")
    found: dict[str, Any] = {
        "base_model": base if is_hub_id(base) else None,
        "base_model_relation": ("adapter" if adapter else "finetune") if is_hub_id(base) else None,
        "library_name": "peft" if adapter else "transformers",
        "pipeline_tag": "text-generation",
        "license": _LICENCES.get(name),
        "datasets": [_ON_THE_HUB[dataset]] if dataset in _ON_THE_HUB else None,
        "tags": ["alignarena", cell.method, *([f"arxiv:{paper[1]}"] if paper else [])],
    }
    return {key: value for key, value in found.items() if value is not None}


def _index(folder: RunFolder, cell: Cell, means: Mapping[str, stats.Interval]) -> dict[str, Any]:
    suite = _suite_name(folder)
    metrics = [{"type": name, "name": name, "value": round(found.mean, 6)} for name, found in means.items()]
    result = {
        "task": {"type": "text-generation"}, "dataset": {"name": suite, "type": f"alignarena/{suite}"},
        "metrics": metrics,
    }  # fmt: skip
    named = {"name": f"{suite}-{cell.method}-{cell.seed}", "results": [result] if metrics else []}
    return {"model-index": [named]}


def _loading(form: Form, folder: RunFolder, cell: Cell) -> str:
    if form == "stored":
        how = f"""These are the bare weights. For a folder that peft loads, or with `--merge` transformers:

    alignarena export {' '.join(printable(str(folder.path)).split())} {cell.method} {cell.seed} --to DIR"""
    else:
        how = f"{_CODE[form]}\n\nIts chat template and generation config put a prompt and sample as evaluation did."
    if form == "adapter":
        how += f" The adapter belongs to the base model that its configuration names ({_plain(_base(folder))})."
    return _recipe(folder, cell) + how


def _recipe(folder: RunFolder, cell: Cell) -> str:
    """Say what a policy needs beside its weights; nothing, of most."""
    recipe = read_json(folder.cell_path(cell.method, cell.seed) / "policy" / "recipe.json", {})
    if "policy" not in recipe:
        return ""
    settings = {key: value for key, value in recipe.items() if not isinstance(value, dict)}
    return (f"The weights are not all: the policy is a recipe around them, described in `recipe.json`, and the results "
            f"below are the recipe's.\n\n{_indented(settings)}\n\n")  # fmt: skip


def _data(suite: Mapping[str, Any]) -> str:
    feedback = suite.get("feedback") or {}
    said = f"{suite.get('summary') or suite.get('name', '')}; feedback: {feedback.get('annotator', 'not stated')}"
    given = {name: value for name, value in (suite.get("data") or {}).items() if value}
    if given.get("dataset") != "exact":
        given.pop("world", None)
    return f"{_plain(said)}\n\n{_indented(given)}"


def _charged(cell: Cell) -> str:
    counts = [(name.replace("_", " "), f"{count:,.6g}") for name, count in cell.charged.to_dict().items() if count]
    ended = " It ended when its budget was used up." if cell.outcome.get("stopped") == "budget" else ""
    return f"All that the method used, as if it had run alone.{ended}\n\n{_table(('count', 'charged'), counts)}"


def _results(folder: RunFolder, cell: Cell, means: Mapping[str, stats.Interval]) -> str:
    rows = [(name, *_shown(found)) for name, found in means.items()]
    rows += [(f"{name} against SFT", *_shown(found)) for name, found in _against_sft(folder, cell)]
    if not rows:
        return "Not scored."
    unit = "One seed: claims about this checkpoint, not about the method. Intervals resample clusters of prompts."
    return f"{unit}\n\n{_table(('metric', 'mean', '95 % interval'), rows)}"


def _reproduce(folder: RunFolder, cell: Cell) -> str:
    command = str(folder.provenance.get("command") or f"alignarena run {_suite_name(folder)}")
    told = f"suite digest {folder.status.get('suite_digest', 'unknown')}, seed {cell.seed}"
    return f"    {' '.join(printable(command).split())}\n\n{_plain(told)}"


def _against_sft(folder: RunFolder, cell: Cell) -> Iterator[tuple[str, stats.Interval]]:
    """Yield paired differences to the SFT policy of the same seed, where that is scored already."""
    if cell.method == BASELINE:
        return
    cells = (cell, folder.read_cell(BASELINE, cell.seed))
    ours, theirs = (known_scores(_suite_name(folder), one) for one in cells)
    for metric in _VERDICTS:
        pair = paired_by_prompt(ours[ours["metric"] == metric], theirs[theirs["metric"] == metric])
        if len(pair):
            yield metric, stats.mean_interval([(pair["value"].to_numpy(), pair["cluster"].to_numpy())])


def _shown(found: stats.Interval) -> tuple[str, str]:
    return f"{found.mean:.3f}", f"[{found.low:.3f}, {found.high:.3f}]" if found.known else "-"


def _suite_name(folder: RunFolder) -> str:
    return str(folder.suite.get("name") or folder.name)


def _base_name(folder: RunFolder) -> str:
    model = folder.suite.get("model") or {}
    return str(model.get("model_name_or_path") or model.get("name") or "unknown")


def _base(folder: RunFolder) -> str:
    return HUB_NAMES.get(_base_name(folder), _base_name(folder))


def is_hub_id(name: str) -> bool:
    """Whether a name could be that of a repository on the Hub: ``OWNER/NAME``."""
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name))


def _plain(value: Any) -> str:
    """Return a value as one line of Markdown that holds no markup."""
    return printable(str(value)).translate(MARKDOWN).replace("[", r"\[").replace("_", r"\_").strip()


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *([_plain(value) for value in row] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _indented(values: Mapping[str, Any]) -> str:
    """Return plain values as a block of YAML that no text in them can end."""
    return "\n".join(f"    {line}" for line in _yaml(values).splitlines())


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=False, width=1000)
