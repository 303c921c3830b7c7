"""``alignarena new-method``: the one file a newcomer writes, and its test. Both run as written."""

from __future__ import annotations

import keyword
from pathlib import Path

from alignarena import methods
from alignarena.core import registry
from alignarena.core.errors import BadInput
from alignarena.core.files import atomic_write

_METHOD = '''"""{title}: direct preference optimisation with a beta of its own, until you change it.

Differs from the paper: everything still to be written.

Run it:  alignarena run quickstart --methods {run_as}
"""

from __future__ import annotations

from dataclasses import dataclass

from alignarena import Lab, Task, method
from alignarena.core.contract import Policy, Schedule
from alignarena.methods.parts.experience import pairs_of
from alignarena.methods.parts.losses import DPOLoss


@method("{name}", paper="arXiv:NNNN.NNNNN", family="offline")
@dataclass(frozen=True)
class {title}:
    """Fields are the hyperparameters: `--set method.{name}.beta=0.3` sets one."""

    beta: float = 0.05  # larger keeps the policy closer to the reference model
    schedule: Schedule = Schedule(learning_rate=1e-4)

    def align(self, task: Task, lab: Lab) -> Policy:
        """Fit the SFT policy to all pairs of the rankings."""
        preferences = pairs_of(task.preferences["overall"])
        return lab.fit(task.policy, preferences, DPOLoss(self.beta, soft=preferences.soft), self.schedule)
'''

_LOOSE_TEST = '''"""Does {name} keep the contract? Runs in seconds: nothing is trained."""

from pathlib import Path

from alignarena.conformance import check_method
from alignarena.core.registry import load_file


def test_{name}_keeps_the_contract() -> None:
    """Its rows hold what its loss reads, and more that `check_method` asks."""
    load_file(Path(__file__).with_name("{name}.py"))
    lab = check_method("{name}")
    assert lab.log[0] == "fit Fixed DPOLoss"  # the verbs it used, in order
'''

_BUILT_IN_TEST = '''from alignarena.conformance import check_method


def test_{name}_keeps_the_contract() -> None:
    lab = check_method("{name}")
    assert lab.log[0] == "fit Fixed DPOLoss"  # the verbs it used, in order
'''


def new_method(name: str, folder: str | Path = ".") -> tuple[Path, Path]:
    """Write a method file and its test; in the package's own methods/, the test goes to tests/methods/.

    Args:
        name: The key of the method, its file name and its row in the report.
        folder: Where to write the method file.

    Returns:
        The paths of the method file and of its test.

    Raises:
        BadInput: The name is no identifier or taken, or a file would be overwritten.
    """
    registry.load_all()
    if not name.isidentifier() or keyword.iskeyword(name) or not name.islower():
        raise BadInput(f"method name {name!r} is not a lower-case Python name; write it like my_method")
    if name in registry.METHODS:
        raise BadInput(f"method {name!r} is already registered by {registry.METHODS[name].module}; choose another name")
    method_path = Path(folder).resolve() / f"{name}.py"
    built_in = method_path.parent == Path(methods.__path__[0]).resolve()
    test_folder = method_path.parent.parent / "tests" / "methods" if built_in else method_path.parent
    test_path = test_folder / f"test_{name}.py"
    for path in (method_path, test_path):
        if path.exists():
            raise BadInput(f"{path} exists; choose another name or --dir, or delete it")
    title = name.title().replace("_", "")
    run_as = name if built_in else f"sft,{name}.py"
    atomic_write(method_path, _METHOD.format(name=name, title=title, run_as=run_as))
    atomic_write(test_path, (_BUILT_IN_TEST if built_in else _LOOSE_TEST).format(name=name))
    return method_path, test_path
