"""A model on this machine as judge: the labeler's questions, both orders, from the cache the second time."""

import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from alignarena.evaluators.judges.api import ApiJudge
from alignarena.evaluators.judges.local import LocalJudge
from alignarena.evaluators.judges.pairs import Pair
from alignarena.harness.lab import HarnessLab

PAIRS = [Pair(f"w{i}", f"w{i} w2 w3", f"w{i + 1}") for i in range(3)]


def test_both_orders_and_grades(new_lab: Callable[..., HarnessLab]) -> None:
    lab = new_lab()
    judge = LocalJudge("tiny", lab=lab)
    answers = judge.answers(PAIRS)
    for one, back in zip(answers, judge.answers([pair.swapped() for pair in PAIRS]), strict=True):
        assert one.orders is not None and one.probability is not None and back.probability is not None
        assert one.probability == pytest.approx((one.orders[0] + 1 - one.orders[1]) / 2)
        assert one.probability + back.probability == pytest.approx(1.0, abs=1e-6)  # T14
    assert judge.answers(PAIRS) == answers and lab.account.stages[-1]["hit"]
    graded = LocalJudge("tiny", pointwise=True, lab=lab).answers(PAIRS)
    assert all(one.orders is None and one.probability is not None for one in graded)
    assert graded != answers


def test_it_meets_no_role_marker_and_no_long_text(new_lab: Callable[..., HarnessLab]) -> None:
    pairs = [Pair("w1", "w2 <|im_end|>", "w3"), Pair("w1", "w2 " * 4000, "w3"), Pair("w1", "", "w3")]
    answers = LocalJudge("tiny", lab=new_lab()).answers(pairs)
    assert [one.suspects for one in answers] == [("role marker",), ("long",), ("empty",)]
    assert [one.ruled for one in answers] == [False, False, True]


def test_its_name_says_how_it_is_asked() -> None:
    assert LocalJudge("org/m-1").name == "m-1"
    assert LocalJudge("org/m-1", pointwise=True, rationale_tokens=9).name == "m-1-pointwise-thinking"
    brief, kind = LocalJudge("m", goal="Be brief."), LocalJudge("m", goal="Be kind.")
    assert brief.name != kind.name and brief.name.startswith("m-")
    assert brief.name == ApiJudge("m", goal="Be brief.").name
    assert "Be brief." in brief.how and "on this machine" in brief.how
    assert LocalJudge("m").lineage == {"model m"} and LocalJudge("m").role == "verdict"


@pytest.mark.slow
def test_transformers_serve_answers_and_may_be_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The embedded model behind a real server: killed on the way, then started again."""
    pytest.importorskip("openai")
    pytest.importorskip("uvicorn", reason="pip install 'transformers[serving]'")
    from alignarena.harness.models import resolve_model

    model = resolve_model("smollm2-135m-instruct")
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    judge = ApiJudge(model, base_url=f"http://127.0.0.1:{port}/v1", concurrency=1, retries=0, rereads=1, timeout=120.0)
    pairs = [Pair(f"Name colour {i}.", "Red is a colour.", "No.") for i in range(3)]
    server = _serve(port)
    try:
        first = judge.answers(pairs[:1])
    finally:
        server.kill()
        server.wait()
    assert first[0].probability is not None
    cut = judge.answers(pairs)
    assert cut[0] == first[0] and {one.missing for one in cut[1:]} == {"no connection"}
    server = _serve(port)
    try:
        whole = judge.answers(pairs)
        (soft,) = replace(judge, decisions=True).answers(pairs[:1])
    finally:
        server.kill()
        server.wait()
    assert soft.orders is not None and 0 < soft.orders[0] < 1
    assert whole[0] == first[0] and all(one.probability is not None for one in whole)


def _serve(port: int) -> subprocess.Popen[bytes]:
    command = [str(Path(sys.executable).with_name("transformers")), "serve", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if server.poll() is not None:
            pytest.fail(f"transformers serve ended with status {server.returncode}")
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) == 0:
                return server
        time.sleep(0.2)
    server.kill()
    pytest.fail("transformers serve did not open its port")
