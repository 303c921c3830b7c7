from types import SimpleNamespace

from alignarena.benchmarks.perf.alternation import Alternation, take_turns


def steps(alternation, order, count):
    for step in range(count):
        state = SimpleNamespace(global_step=step)
        alternation.on_step_begin(None, state, None)
        order.append("theirs")
        state.global_step += 1
        alternation.on_step_end(None, state, None)
        alternation.on_log(None, state, None, {"loss": float(step)})


def test_who_goes_first_changes():
    order = []
    alternation = Alternation(lambda: order.append("ours") or {"loss": 0.0})
    steps(alternation, order, 3)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    ours, theirs = alternation.turns.counted
    assert (len(ours), len(theirs)) == (2, 2)  # the first of each is the warm-up
    assert [line["loss"] for line in alternation.turns.their_lines] == [0.0, 1.0, 2.0]


def test_always_second_for_a_replay():
    order = []
    steps(Alternation(lambda: order.append("ours") or {}, always_second=True), order, 2)
    assert order == ["theirs", "ours", "theirs", "ours"]


def test_plain_calls_take_turns():
    order = []
    turns = take_turns(lambda: order.append("ours"), lambda: order.append("theirs"), repeats=2)
    assert order == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert [len(seconds) for seconds in turns.counted] == [2, 2]
