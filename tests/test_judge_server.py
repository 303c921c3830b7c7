"""`alignarena judge` over real HTTP: who is answered, and that no kill loses or doubles a verdict."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import run_folders
from judging_process import JudgingProcess, ask

from alignarena import cli, judge_session
from alignarena.benchmarks.blind import draw
from alignarena.benchmarks.people import count
from alignarena.benchmarks.sitting import Sitting
from alignarena.core.errors import BadInput, RunFailed
from alignarena.core.files import read_json, read_jsonl, write_json
from alignarena.core.text import printable
from alignarena.judge_server import PageServer
from alignarena.reports.judge_page import judge_page
from alignarena.results.people import Person
from alignarena.results.store import RunFolder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return run_folders.quickstart(tmp_path / "run", methods=("sft", "dpo", "ppo"))


@pytest.fixture
def server(run: RunFolder) -> Iterator[PageServer]:
    sitting = Sitting(draw(run), Person(run.path, "ann"))
    one = PageServer(sitting, judge_page("run <b>", "ann"), "secret")
    with one.running():
        yield one


def verdict(server: PageServer, body: Any) -> tuple[int, dict[str, Any]]:
    status, answer, _ = ask(f"{server.url}verdict", body if isinstance(body, bytes) else json.dumps(body).encode())
    return status, json.loads(answer)


def journal(run: RunFolder, name: str = "ann") -> list[dict[str, Any]]:
    return read_jsonl(run.path / "people" / f"{name}.jsonl")


def test_the_page_may_load_nothing_but_itself(server: PageServer) -> None:
    status, page, headers = ask(server.url)
    policy = headers["Content-Security-Policy"]
    assert status == 200 and b"run &lt;b&gt;" in page and b"http" not in page
    assert policy.startswith("default-src 'none'; script-src 'sha256-") and "unsafe" not in policy
    assert (headers["Cache-Control"], headers["Referrer-Policy"]) == ("no-store", "no-referrer")
    assert headers["X-Content-Type-Options"] == "nosniff" and "Access-Control-Allow-Origin" not in headers


def test_it_listens_on_loopback_alone(server: PageServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    with socket.socket() as other, pytest.raises(OSError):  # another address of this machine
        other.connect(("127.0.0.2", server.server_port))


@pytest.mark.parametrize("path", ["/", "/state", "/wrong/", "/wrong/state", "/secre/state", "/%73ecret/state"])
def test_without_the_token_nothing_is_told(server: PageServer, path: str) -> None:
    for body in (None, b"{}"):
        status, answer, _ = ask(f"http://127.0.0.1:{server.server_port}{path}", body)
        assert status == 403 and b"prompt" not in answer


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost.evil:80", "[::1]", ""])
def test_another_host_is_refused_though_the_token_is_right(server: PageServer, host: str) -> None:
    for what in ("", "state"):
        assert ask(server.url + what, headers={"Host": host})[0] == 403
    assert ask(f"{server.url}verdict", b"{}", headers={"Host": host})[0] == 403


def test_this_machine_by_name_is_no_other_host(server: PageServer) -> None:
    for host in ("localhost", "localhost:9999", "127.0.0.1"):  # another port: a tunnel
        assert ask(f"{server.url}state", headers={"Host": host})[0] == 200


@pytest.mark.parametrize(
    "body",
    [
        b"", b"garbage", b"[]", b"null", b"3", b"{}", b"\xff\xfe", b'{"pair": "x"}',
        b'{"pair": "x", "verdict": "first"}', b'{"pair": ["x"], "verdict": {}}',
        b'{"pair": "x", "verdict": "first"}' * 400,
    ],
)  # fmt: skip
def test_garbage_is_refused_and_nothing_is_noted(server: PageServer, run: RunFolder, body: bytes) -> None:
    status, answer = verdict(server, body)
    assert status == 400 and "expected {pair, verdict}" in answer["error"]
    assert journal(run) == [] and ask(f"{server.url}state")[0] == 200


def test_a_wrong_choice_a_wrong_place_and_a_wrong_method(server: PageServer, run: RunFolder) -> None:
    key = server.sitting.state()["pairs"][0]["pair"]
    assert verdict(server, {"pair": key, "verdict": "third"})[0] == 400
    assert ask(f"{server.url}nothing")[0] == ask(f"{server.url}state", b"{}")[0] == 404
    assert ask(f"{server.url}state", method="DELETE")[0] == 501
    assert ask(f"{server.url}verdict", headers={"Content-Length": "-1"}, method="POST")[0] == 400
    assert journal(run) == []


def test_verdicts_and_undo(server: PageServer, run: RunFolder) -> None:
    first, second = (one["pair"] for one in server.sitting.state()["pairs"][:2])
    assert verdict(server, {"pair": first, "verdict": "first"})[1]["done"] == 1
    assert verdict(server, {"pair": second, "verdict": "tie"})[1]["done"] == 2
    status, state = verdict(server, {"pair": second, "verdict": None})
    assert (status, state["done"], state["pairs"][0]["pair"]) == (200, 1, second)
    assert [row["pair"] for row in journal(run) if row["first"]] == [first, second, second]
    assert journal(run)[-1]["winner"] is None and list(Person(run.path, "ann").standing) == [first]


def test_what_models_wrote_comes_as_it_is_but_for_control_characters(tmp_path: Path) -> None:
    run = run_folders.quickstart(tmp_path / "nasty", methods=("sft", "dpo"))
    rows = run.completions("dpo", 0)[: 2 * len(run_folders.NASTY) : 2]
    run.write_cell("dpo", 0, completions=[{**row, "completion": f"{row['completion']}!"} for row in rows])
    shown = set[str]()
    with PageServer(Sitting(draw(run), Person(run.path, "ann")), judge_page("run", "ann"), "secret").running() as url:
        for one in json.loads(ask(f"{url}state")[1])["pairs"]:
            shown |= {one["first"], one["second"]}
    assert shown == {printable(text) + end for text in run_folders.NASTY for end in ("", "!")}
    assert not any("\x00" in text or "\ud83d" in text for text in shown)


def test_a_full_disk_is_told_and_the_verdict_does_not_count(
    server: PageServer, run: RunFolder, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise RunFailed("cannot write ann.jsonl: No space left on device")

    key = server.sitting.state()["pairs"][0]["pair"]
    with monkeypatch.context() as patch:
        patch.setattr("alignarena.results.people.append_jsonl", full)
        assert verdict(server, {"pair": key, "verdict": "first"})[0] == 507
    assert "No space left" in capsys.readouterr().out and server.sitting.state()["done"] == 0
    assert verdict(server, {"pair": key, "verdict": "first"})[1]["done"] == 1


def test_two_tabs_at_once_note_each_pair_once(server: PageServer, run: RunFolder) -> None:
    keys = [one["pair"] for one in server.sitting.state()["pairs"]]

    def tab() -> None:
        for key in keys:
            verdict(server, {"pair": key, "verdict": "first"})

    tabs = [threading.Thread(target=tab) for _ in range(4)]
    for one in tabs:
        one.start()
    for one in tabs:
        one.join()
    assert sorted(row["pair"] for row in journal(run) if row["first"]) == sorted(keys)


def test_kill_9_in_the_middle_loses_nothing_and_doubles_nothing(run: RunFolder, tmp_path: Path) -> None:
    page = JudgingProcess(run.path, tmp_path / "cache")
    confirmed = list[str]()

    def judge_until_it_dies() -> None:
        try:
            state = page.ask("state")[1]
            while state["pairs"]:
                key = state["pairs"][0]["pair"]
                state = page.ask("verdict", {"pair": key, "verdict": "second"})[1]
                confirmed.append(key)
        except (OSError, ValueError):  # dead, or in the middle of an answer
            return

    judging = threading.Thread(target=judge_until_it_dies)
    judging.start()
    while len(confirmed) < 20:
        time.sleep(0.005)
    page.kill()
    judging.join()
    noted = [row["pair"] for row in journal(run) if row["first"]]
    assert noted[: len(confirmed)] == confirmed and len(noted) - len(confirmed) <= 1  # one may be on disk, unconfirmed

    again = JudgingProcess(run.path, tmp_path / "cache")
    try:
        assert again.url == page.url  # so that the open tab goes on
        assert again.ask("state")[1]["done"] == len(noted)
        again.ask("verdict", {"pair": noted[-1], "verdict": "second"})  # a tab sends what was not confirmed once more
        assert [row["pair"] for row in journal(run) if row["first"]] == noted
    finally:
        printed = again.interrupt()
    assert "Judge human-people (verdict)" in printed and "report" in printed
    assert read_json(run.path / "extra" / "people.json")["rows"][0][:2] == ["ann", len(noted)]


def test_two_people_at_once_each_with_their_own_verdicts(run: RunFolder, tmp_path: Path) -> None:
    pages = [JudgingProcess(run.path, tmp_path / "cache", "--methods", "dpo", name=name) for name in ("ann", "bob")]
    try:
        shown = [page.ask("state")[1]["pairs"] for page in pages]
        assert [one["pair"] for one in shown[0]] == [one["pair"] for one in shown[1]]  # so that kappa has pairs
        for page, pairs, choice in zip(pages, shown, ("first", "tie"), strict=True):
            for one in pairs[:5]:
                page.ask("verdict", {"pair": one["pair"], "verdict": choice})
        second = [sys.executable, "-m", "alignarena", "judge", str(run.path), "--judge", "ann", "--no-open"]
        refused = subprocess.run(second, capture_output=True, text=True, check=False)
        assert refused.returncode == 2 and "ann judges" in refused.stderr and refused.stderr.count("\n") == 1
    finally:
        for page in pages:
            page.kill()
    assert {row["method"] for row in journal(run) + journal(run, "bob")} == {"dpo"}
    _, _, beside = count(run.path)
    assert beside["rows"][0][:3] == ["ann", "bob", 5] and beside["rows"][0][6] == 0.0
    assert beside["rows"][1][:3] == ["majority", "gold", 5]


def test_it_ends_by_itself_when_all_is_judged(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(judge_session, "_GRACE", 0.1)
    person = Person(run.path, "ann")
    sitting = Sitting(draw(run), person)
    while pairs := sitting.state()["pairs"]:
        for one in pairs:
            sitting.judge(one["pair"], "first")
    judge_session.serve(run.path, "ann", show=False)
    assert "Ctrl-C ends it" in capsys.readouterr().out


def test_the_address_is_kept_for_its_owner_alone(
    run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    sitting = Sitting(draw(run), Person(run.path, "ann"))

    def made(port: int = 0) -> tuple[PageServer, str]:
        server = PageServer.at_address(run, sitting, judge_page("run", "ann"), "ann", port)
        return server, server.url

    first, address = made()
    assert (tmp_path / "cache" / "people").stat().st_mode & 0o777 == 0o700
    assert str(tmp_path / "run") not in address and len(urlsplit(address).path) > 30
    other, elsewhere = made()  # the port is taken: another one, and a token that nobody was sent
    assert urlsplit(elsewhere).port != urlsplit(address).port and urlsplit(elsewhere).path != urlsplit(address).path
    first.server_close()
    other.server_close()
    third, same = made()
    third.server_close()
    assert same == elsewhere
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(BadInput, match="choose another, or leave --port out"):
            made(taken.getsockname()[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--judge", "../x"], "at most 40 letters"),
        (["--judge", "ann", "--methods", "dpoo"], "did you mean 'dpo'"),
        (["--judge", "ann", "--port", "99999"], "port 99999"),
    ],
)
def test_bad_input_is_one_line(
    run: RunFolder, options: list[str], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setenv("ALIGNARENA_CACHE", str(tmp_path / "cache"))
    assert cli.main(["judge", str(run.path), "--no-open", *options]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


def test_a_study_is_judged_run_by_run(run: RunFolder, tmp_path: Path) -> None:
    write_json(tmp_path / "study.json", {"name": "s", "variants": ["run"]})
    with pytest.raises(BadInput, match=r"is a study; judge one of its runs: .*/run$"):
        judge_session.serve(tmp_path, "ann")


def test_the_page_opens_at_once() -> None:
    loaded = "[name for name in ('torch', 'transformers', 'datasets', 'scipy', 'matplotlib') if name in sys.modules]"
    code = f"import sys, alignarena.judge_session; print({loaded})"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"
