from alignarena.benchmarks.perf.terms import Settings
from alignarena.benchmarks.perf.training import DUELS
from alignarena.benchmarks.perf.trial import fastest

CHANGES = [{"gradient_checkpointing": True}, {"attn_implementation": "eager"}, {"gradient_accumulation_steps": 4}]


def seconds(settings):
    """Return made-up seconds: eager attention is faster, and so are small micro-batches, but not under sdpa."""
    eager, small = settings.attn_implementation == "eager", settings.gradient_accumulation_steps > 1
    return 10 - 2 * eager - (1 if eager else -1) * small + 5 * settings.gradient_checkpointing


def test_each_faster_setting_is_kept(new_bench):
    best, tried = fastest(new_bench(), "mine", seconds, CHANGES)
    assert best == Settings(attn_implementation="eager", gradient_accumulation_steps=4)
    assert tried == {
        "sdpa, one micro-batch": 10,
        "sdpa, one micro-batch, gradient checkpointing (TRL's default)": 15,
        "eager, one micro-batch": 8,
        "eager, 4 micro-batches": 7,
    }


def test_an_answer_holds_for_the_run(new_bench):
    bench = new_bench()
    first = fastest(bench, "mine", seconds, CHANGES)
    assert fastest(bench, "mine", lambda settings: 0.0, []) == first


def test_a_real_trial(new_bench):
    best, tried = DUELS[2].tried(new_bench(chosen={}))
    assert DUELS[2].trainer == "sft"
    assert len(tried) == 5
    assert tried[best.label()] == min(tried.values())
