from alignarena.benchmarks.perf import growth
from alignarena.benchmarks.perf.bench import Bench


def test_every_size_is_measured_on_both_sides(new_bench, monkeypatch):
    bench: Bench = new_bench()
    monkeypatch.setattr(growth, "FACTORS", (1, 2))
    monkeypatch.setattr(growth, "COMPLETIONS", (2, 3))
    # the tiny model knows no word of the quickstart's sentences: they would all be equal
    monkeypatch.setattr(growth, "quickstart", lambda tokens, count, k=4: _cut(bench, count, k))
    records = growth.growth(bench)
    assert [(one["axis"], one["what"], one["size"]) for one in records] == [
        ("rows", "dpo_live", 2),
        ("rows", "dpo_live", 4),
        ("completions", "reward_model_4wise", 2),
        ("completions", "reward_model_4wise", 3),
        ("completions", "rollouts", 2),
        ("completions", "rollouts", 3),
    ]
    assert all(one["ours"] > 0 and one["theirs"] > 0 for one in records)


def _cut(bench, count, k):
    from alignarena.benchmarks.perf.work import Work

    return Work(tuple(one.cut(k) for one in bench.quickstart.take(count)), "cut")
