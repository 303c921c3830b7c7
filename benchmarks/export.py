"""``alignarena export``: the policy of a finished cell as a folder for transformers or peft, with its model card."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError

from alignarena.benchmarks.datasets import model_of
from alignarena.benchmarks.suite import Suite, load_suite
from alignarena.core import registry
from alignarena.core.errors import BadInput, RunFailed, nearest
from alignarena.core.files import atomic_write, read_json, write_json
from alignarena.harness.export import write_adapter, write_model
from alignarena.harness.models import resolve_model
from alignarena.results.frame import STUDY
from alignarena.results.model_card import is_hub_id, model_card
from alignarena.results.store import RunFolder


def export(
    run_dir: str | Path, method: str, seed: int, to: str | Path, merge: bool = False, push_to_hub: str | None = None
) -> Path:
    """Write a cell's policy as a folder that loads without this package.

    Args:
        run_dir: A run folder; of a study, that of a variant.
        method: A method of the run.
        seed: One of its seeds.
        to: The folder to write; it must not hold anything yet.
        merge: Whether to write a model folder rather than a peft adapter.
        push_to_hub: A repository id to upload the folder to, as a private repository unless it exists.

    Returns:
        The folder.

    Raises:
        BadInput: No such cell, or it has no policy of this form; a folder in use; no login to the Hub.
        RunFailed: The base model cannot be read, or the upload failed.
    """
    folder, target = _opened(run_dir), Path(to)
    policy = _policy_of(folder, method, seed)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise BadInput(f"--to {target}: not an empty folder; choose another")
    if push_to_hub:
        _check_upload(folder, push_to_hub, merge)
    target.parent.mkdir(parents=True, exist_ok=True)
    half_made = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    try:
        half_made.chmod(0o755)
        _write(folder, policy, half_made, merge)
        atomic_write(half_made / "README.md", model_card(folder, method, seed, "model" if merge else "adapter"))
        os.replace(half_made, target)
    finally:
        shutil.rmtree(half_made, ignore_errors=True)
    if push_to_hub:
        _push(target, push_to_hub)
    return target


def _write(folder: RunFolder, policy: Path, to: Path, merge: bool) -> None:
    suite = _suite(folder)
    model = model_of(suite.data, suite.model)
    if merge:
        precision = str(folder.provenance.get("precision", "fp32")).partition(":")[0]
        write_model(policy, to, model, suite.sampling, precision)
    else:
        write_adapter(policy, to, model, suite.sampling)
    recipe = read_json(policy / "recipe.json", {})
    if "policy" in recipe:
        write_json(to / "recipe.json", _portable(recipe))


def _opened(run_dir: str | Path) -> RunFolder:
    if (Path(run_dir) / STUDY).is_file():
        raise BadInput(f"{run_dir} holds a study; give the folder of one of its variants, {run_dir}/VARIANT")
    return RunFolder.open(run_dir)


def _policy_of(folder: RunFolder, method: str, seed: int) -> Path:
    cells = folder.cells()
    methods = {name for name, _ in cells}
    if method not in methods:
        raise BadInput(f"no method {method!r} in {folder.path}{nearest(method, methods)}")
    if (method, seed) not in cells:
        seeds = [str(one) for name, one in cells if name == method]
        raise BadInput(f"no seed {seed} of {method} in {folder.path}{nearest(str(seed), seeds)}")
    state = folder.state(method, seed)
    if state != "DONE":
        raise BadInput(f"{method}/{seed} of {folder.path} is {state}, not DONE; run the suite again to finish it")
    policy = folder.cell_path(method, seed) / "policy"
    if not (policy / "recipe.json").is_file():
        raise BadInput(f"{policy} is not there: a trimmed run keeps no policies; run the suite again, then export")
    return policy


def _suite(folder: RunFolder) -> Suite:
    for file in folder.provenance.get("method_files", ()):
        registry.load_file(file)
    return load_suite(str(folder.path / "suite.resolved.yaml"))


def _portable(value: Any) -> Any:
    """Return a recipe without the folders of this machine."""
    if isinstance(value, dict):
        return {key: _portable(item) for key, item in value.items() if key != "folder"}
    return value


def _check_upload(folder: RunFolder, repository: str, merge: bool) -> None:
    """Find out before anything is written what an upload would fail by."""
    if not is_hub_id(repository):
        raise BadInput(f"--push-to-hub {repository}: not a repository of the Hub; write OWNER/NAME")
    suite = _suite(folder)
    base = resolve_model(model_of(suite.data, suite.model).model_name_or_path)
    if not merge and Path(base).is_dir():
        raise BadInput(
            f"--push-to-hub {repository}: the adapter belongs to a base model that only this machine has ({base}); "
            "add --merge to upload a whole model"
        )
    if not get_token():
        raise BadInput(f"--push-to-hub {repository}: not logged in; set HF_TOKEN or run `hf auth login`")


def _push(folder: Path, repository: str) -> None:
    try:
        api = HfApi()
        api.create_repo(repository, private=True, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder)
    except (HfHubHTTPError, OSError) as error:
        raise RunFailed(f"{repository} could not be uploaded: {error} ({folder} is written)") from error
