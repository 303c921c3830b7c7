from dataclasses import dataclass, replace

import pytest
import yaml

from alignarena.benchmarks.suite import build_method, list_suites, load_suite, resolved, suite_digest
from alignarena.benchmarks.suite_file import SUITES, variants_of
from alignarena.core import registry
from alignarena.core.contract import Principle, Schedule
from alignarena.core.errors import BadInput
from alignarena.core.registry import MethodEntry


@dataclass(frozen=True)
class Tilt:
    beta: float = 0.1
    rounds: int = 1
    schedule: Schedule = Schedule(learning_rate=5e-7)

    def align(self, task, lab):
        return task.policy


@pytest.fixture(autouse=True)
def tilt(monkeypatch):
    monkeypatch.setitem(registry.METHODS, "tilt", MethodEntry("tilt", Tilt, "arXiv:0", "", __name__))


@pytest.fixture
def write(tmp_path):
    def write(text, name="mine.yaml"):
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


SMALL = """\
summary: small
data: {dataset: quickstart, sizes: {train: 8}}
sft:
  learning_rate: 2e-4
  warmup_ratio: 0
methods:
  tilt:
    beta: 0.3
seeds: [0, 1]
"""


def failure(write, text, overrides=None):
    with pytest.raises(BadInput) as error:
        load_suite(write(text), overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_file_becomes_typed_dataclasses_with_defaults(write):
    suite = load_suite(write(SMALL))
    assert (suite.name, suite.seeds, suite.revision) == ("mine", (0, 1), 1)
    assert suite.sft == Schedule(learning_rate=2e-4)
    assert isinstance(suite.sft.warmup_ratio, float)
    assert suite.data.sizes == {"train": 8}
    assert suite.model.model_name_or_path == "smollm2-135m-instruct"
    assert suite.methods == {"tilt": {"beta": 0.3}}
    assert build_method("tilt", suite.methods["tilt"]) == Tilt(beta=0.3)
    assert build_method("tilt", {"schedule": {"batch_size": 4}}).schedule == Schedule(learning_rate=5e-7, batch_size=4)


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("learning_rate: 2e-4", "learning_rat: 2e-4", 4, "'sft.learning_rat'; did you mean 'learning_rate'?"),
        ("learning_rate: 2e-4", "learning_rate: fast", 4, "sft.learning_rate: expected a number, got 'fast'"),
        ("summary: small", "sumary: small", 1, "'sumary'; did you mean 'summary'?"),
        ("    beta: 0.3", "    betta: 0.3", 8, "'methods.tilt.betta'; did you mean 'beta'?"),
        ("    beta: 0.3", "    rounds: 1.5", 8, "methods.tilt.rounds: expected int"),
        ("  tilt:", "  tilted:", 7, "unknown method 'tilted'; did you mean 'tilt'?"),
        ("  tilt:\n    beta: 0.3", "  tilt: 3", 7, "methods.tilt: expected"),
        ("seeds: [0, 1]", "seeds:\n- 0\n- one", 11, "seeds[1]: expected int, got str 'one'"),
        ("seeds: [0, 1]", "seeds: [1, 1]", 9, "seeds: give at least one, each once"),
        ("{train: 8}", "{eval: 8}", 2, "'data.sizes.eval'; did you mean 'evaluation'?"),
        ("dataset: quickstart", "dataset: quickstrat", 2, "did you mean 'quickstart'?"),
        ("dataset: quickstart", "path: x", 2, "the key 'dataset' is missing"),
        ("seeds: [0, 1]", "seeds: [0]\nseeds: [1]", 10, "'seeds' is given twice"),
        ("seeds: [0, 1]", "seeds: [0", 10, "not valid YAML"),
        ("seeds: [0, 1]", "3: x", 9, "the key '3' is not text"),
        ("seeds: [0, 1]", "seeds: !!python/object/apply:os.getcwd []", 9, "not valid YAML"),
        ("seeds: [0, 1]", "summary2: !!python/name:os.system x", 9, "not valid YAML"),
        ("seeds: [0, 1]", "seeds: &a [*a]", 9, "the anchor contains itself"),
        ("seeds: [0, 1]", "model: {max_new_tokens: 0}", 9, "model.max_new_tokens: must be at least 1"),
        ("seeds: [0, 1]", "feedback: {annotator: human}", 9, "'quickstart' has no human pairs"),
        ("seeds: [0, 1]", "feedback: {annotator: ghost}", 9, "'ghost' is not one of 'simulated', 'human'"),
        ("seeds: [0, 1]", "feedback: {n: 1}", 9, "feedback.n: a comparison needs at least 2"),
        ("seeds: [0, 1]", "evaluation: {n: 0}", 9, "evaluation.n: must be at least 1"),
        ("seeds: [0, 1]", "evaluation: {margin: 0}", 9, "evaluation.margin: must be a number above 0"),
        ("seeds: [0, 1]", "sampling: {max_new_tokens: 900}", 9, "sampling.max_new_tokens: more than"),
        ("seeds: [0, 1]", "budget: {track: labelz}", 9, "did you mean 'labels'?"),
    ],
)
def test_a_wrong_suite_file_names_file_line_and_key(write, old, new, line, message):
    assert old in SMALL
    text = failure(write, SMALL.replace(old, new))
    assert f"mine.yaml:{line}: " in text
    assert message in text


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just words"])
def test_a_file_that_is_no_mapping(write, text):
    assert "a suite is a mapping" in failure(write, text)


def test_missing_sections_are_named(write):
    assert "the key 'methods' is missing" in failure(write, "data: {dataset: quickstart}")
    assert "the key 'data' is missing" in failure(write, "methods: {tilt: }")
    assert "methods: name at least one" in failure(write, "data: {dataset: quickstart}\nmethods: {}")


def test_bytes_that_are_not_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"x\.yaml: not valid YAML"):
        load_suite(str(tmp_path / "x.yaml"))


def test_unknown_suites_name_the_nearest(tmp_path):
    with pytest.raises(BadInput, match=r"unknown suite 'quickstrat'; did you mean 'quickstart'\?"):
        load_suite("quickstrat")
    with pytest.raises(BadInput, match=r"nothing\.yaml does not exist"):
        load_suite(str(tmp_path / "nothing.yaml"))


def test_overrides_are_read_as_yaml_and_applied_by_path(write):
    suite = load_suite(
        write(SMALL),
        {
            "method.tilt.beta": "0.7",
            "methods.tilt.schedule.batch_size": "4",
            "sft.learning_rate": "1e-3",
            "model.model_name_or_path": "org/model",
            "model.system_message": "null",
            "data.sizes.train": 32,
            "data.sizes.evaluation": "16",
            "budget.labels": "100",
            "seeds": "[3, 4]",
        },
    )
    assert suite.methods == {"tilt": {"beta": 0.7, "schedule": {"batch_size": 4}}}
    assert suite.sft.learning_rate == 1e-3
    assert (suite.model.model_name_or_path, suite.model.system_message) == ("org/model", None)
    assert suite.data.sizes == {"train": 32, "evaluation": 16}
    assert (suite.budget.labels, suite.seeds) == (100.0, (3, 4))


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("method.tilt.betta", "1", "unknown key 'methods.tilt.betta'; did you mean 'beta'?"),
        ("method.tillt.beta", "1", "unknown method 'tillt'; did you mean 'tilt'?"),
        ("modle.lora_r", "4", "unknown key 'modle'; did you mean 'model'?"),
        ("sft.learning_rate", "fast", "sft.learning_rate: expected a number"),
        ("sft.learning_rate.x", "1", "sft.learning_rate is a value, not a section"),
        ("seeds", "[0", "'[0' is not a YAML value"),
        ("data.sizes", "{train: -1}", "data.sizes.train: must not be negative"),
        ("sft.", "1", "expected a path such as"),
        ("sft.batch_size", "many", "sft.batch_size: expected int"),
    ],
)
def test_a_wrong_override_names_itself(write, key, value, message):
    text = failure(write, SMALL, {key: value})
    assert text.startswith("--set ") and message in text
    assert "mine.yaml" not in text


def test_extends_lays_keys_over_the_other_suite(write):
    write(SMALL, "parent.yaml")
    child = write(
        "extends: parent.yaml\nsft: {batch_size: 4}\nmethods: {tilt: {rounds: 2}}\nseeds: [7]\n", "child.yaml"
    )
    suite = load_suite(child)
    assert suite.name == "child" and suite.summary == "small"
    assert suite.sft == Schedule(learning_rate=2e-4, batch_size=4)
    assert suite.methods == {"tilt": {"beta": 0.3, "rounds": 2}}
    assert suite.seeds == (7,)


def test_errors_behind_extends_name_the_right_file(write):
    write(SMALL.replace("warmup_ratio", "warmup"), "parent.yaml")
    assert "parent.yaml:5: " in failure(write, "extends: parent.yaml\n")
    assert "mine.yaml:1: extends: unknown suite 'quickstrat'" in failure(write, "extends: quickstrat\n")
    write("extends: mine.yaml\n", "parent.yaml")
    assert "parent.yaml:1: extends: 'mine.yaml' extends this file in turn" in failure(write, "extends: parent.yaml\n")


def test_resolved_loads_as_the_same_suite(write):
    suite = load_suite(write(SMALL), {"method.tilt.schedule.batch_size": 2})
    text = yaml.safe_dump(resolved(suite), sort_keys=False)
    again = load_suite(write(text, "suite.resolved.yaml"))
    assert again == suite
    assert suite_digest(again) == suite_digest(suite)


def test_the_digest_ignores_what_merges_and_sees_the_rest(write):
    suite = load_suite(write(SMALL))
    name = suite_digest(suite)
    for same in (
        replace(suite, methods={"sft": {}}),
        replace(suite, seeds=(5,)),
        replace(suite, evaluators=("gold",)),
        replace(suite, name="x", summary="y"),
    ):
        assert suite_digest(same) == name
    for key, value in {
        "sft.learning_rate": 3e-4,
        "model.max_new_tokens": 20,
        "data.sizes.train": 9,
        "feedback.noise": 0.2,
        "revision": 2,
        "evaluation.n": 3,
        "budget.labels": 10,
        "sampling.temperature": 0.5,
        "reward_model.margin_scale": 1.0,
    }.items():
        assert suite_digest(load_suite(write(SMALL), {"evaluators": ["behaviour"], key: value})) != name, key


def test_kl_is_of_answers_drawn_as_training_draws(write):
    with pytest.raises(BadInput, match="the evaluator 'kl' is of answers drawn at temperature 1"):
        load_suite(write(SMALL), {"sampling.temperature": 0.5, "evaluators": ["kl"]})
    assert load_suite(write(SMALL), {"sampling.max_new_tokens": 8, "evaluators": ["kl"]})
    assert load_suite(write(SMALL), {"sampling.temperature": 0.5, "evaluators": ["behaviour"]})


def test_the_digest_does_not_depend_on_where_or_in_which_order_values_are_given(write):
    lines = SMALL.splitlines(keepends=True)
    moved = write("".join(lines[5:] + lines[:5]), "moved.yaml")
    assert suite_digest(load_suite(moved)) == suite_digest(load_suite(write(SMALL)))
    without = load_suite(write(SMALL.replace("  learning_rate: 2e-4\n", "")), {"sft.learning_rate": "0.0002"})
    assert suite_digest(without) == suite_digest(load_suite(write(SMALL)))


BUILT_IN = [file.stem for file in SUITES.glob("*.yaml")]
SINGLE = [one for name in BUILT_IN for one in [f"{name}/{variant}" for variant in variants_of(name)] or [name]]


@pytest.mark.parametrize("name", SINGLE)
def test_built_in_suites_load(name):
    suite = load_suite(name)
    assert suite.name == name and suite.summary
    assert suite_digest(load_suite(name)) == suite_digest(suite)
    assert "sft" in suite.methods


def test_list_suites_names_them_all():
    listed = list_suites()
    assert [entry.name for entry in listed] == sorted(BUILT_IN)
    assert all(entry.summary and entry.dataset for entry in listed)


CONSTITUTION = "principles:\n- critique_request: Is it curt?\n  revision_request: Make it kind.\n"


def test_a_constitution_is_read_into_the_suite_and_so_into_its_digest(write, tmp_path):
    path = write(CONSTITUTION, "kind.yaml")
    text = SMALL + f"feedback: {{constitution: {path}}}\n"
    suite = load_suite(write(text))
    assert suite.feedback.constitution == (Principle("Is it curt?", "Make it kind."),)
    again = write(yaml.safe_dump(resolved(suite)), "resolved.yaml")
    (tmp_path / "kind.yaml").unlink()
    assert load_suite(again).feedback == suite.feedback and suite_digest(load_suite(again)) == suite_digest(suite)
    write(CONSTITUTION.replace("curt", "cold"), "kind.yaml")
    assert suite_digest(load_suite(write(text))) != suite_digest(suite)
    by_flag = load_suite(write(SMALL), {"feedback.constitution": "harmless"}).feedback.constitution
    assert len(by_flag) >= 12
    assert load_suite(write(SMALL), {"feedback.constitution": "default"}).feedback.constitution == ()


def test_what_is_wrong_in_a_constitution_is_said_with_both_lines(write):
    path = write(CONSTITUTION.replace("revision_request", "revison_request"), "kind.yaml")
    said = failure(write, SMALL + f"feedback:\n  constitution: {path}\n")
    assert "mine.yaml:11: feedback.constitution: " in said and "kind.yaml:2: unknown key 'revison_request'" in said
    assert "unknown constitution 'harmles'" in failure(write, SMALL, {"feedback.constitution": "harmles"})
    empty = SMALL + "feedback:\n  constitution: [{critique_request: ' ', revision_request: a}]\n"
    assert "feedback.constitution[0]: critique_request is empty" in failure(write, empty)
