"""The report in a real browser: sorting, completions, escaping, accessibility, and what it asks of the network."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from alignarena.reports.page import write_report

axe_core_python = pytest.importorskip("axe_core_python", reason="axe is not installed (make setup installs it)")
selenium = pytest.importorskip("selenium", reason="selenium is not installed (make setup installs it)")

from selenium import webdriver  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

_AXE = Path(axe_core_python.__file__).parent / "axe.min.js"
_PICTURES = str.maketrans({"\x00": "\u2400", "\x07": "\u2407"})
_WAIT = 10  # seconds, at most
_HELPERS = Path(__file__).parent


def _module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


folders, helpers = _module(_HELPERS.parent / "run_folders.py"), _module(_HELPERS / "conftest.py")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = folders.quickstart(tmp_path_factory.mktemp("browser") / "quickstart", seeds=(0, 1), failed=("rest",),
                             methods=(*folders.METHODS, "rest", "hir"))  # fmt: skip
    return write_report([run.path])


@pytest.fixture
def opened(browser: webdriver.Chrome, page: Path) -> webdriver.Chrome:
    browser.get_log("performance")
    helpers.console(browser)
    helpers.open_file(browser, page)
    _shown(browser)
    return browser


def _shown(browser: webdriver.Chrome) -> None:
    _until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, "#right-completions .completion"))


def _choose(browser: webdriver.Chrome, element: str, value: str) -> None:
    Select(browser.find_element(By.ID, element)).select_by_value(value)


def _texts(browser: webdriver.Chrome, side: str) -> list[str]:
    script = "return [...document.querySelectorAll(arguments[0])].map((one) => one.textContent)"
    return list(browser.execute_script(script, f"#{side}-completions .completion .text"))


def _until(browser: webdriver.Chrome, holds: Any) -> None:
    WebDriverWait(browser, _WAIT).until(lambda _: holds())


def _column(browser: webdriver.Chrome, heading: int) -> list[float]:
    rows = "[...document.querySelector('table.sortable').tBodies[0].rows]"
    shown = browser.execute_script(f"return {rows}.map((row) => row.cells[arguments[0]].dataset.sort)", heading)
    return [float(one) for one in shown if one != ""]


def test_nothing_is_asked_of_the_network_and_the_console_is_quiet(opened: webdriver.Chrome) -> None:
    events = [json.loads(line["message"])["message"] for line in opened.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in events if one["method"] == "Network.requestWillBeSent"]
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert sum(url.startswith("file:") for url in asked) == 1  # the page itself
    assert helpers.console(opened) == []


def test_a_click_on_a_heading_sorts_and_another_turns_it_round(opened: webdriver.Chrome) -> None:
    before = _column(opened, 1)
    button = opened.find_elements(By.CSS_SELECTOR, "table.sortable .sort")[1]
    button.click()
    assert _column(opened, 1) == sorted(before, reverse=True) != before
    assert button.find_element(By.XPATH, "..").get_attribute("aria-sort") == "descending"
    button.click()
    assert _column(opened, 1) == sorted(before)
    last = opened.execute_script("return document.querySelector('table.sortable').tBodies[0].rows").pop().text
    assert "rest" in last  # it failed: without a number, at the end either way


def test_what_models_wrote_is_shown_as_text(opened: webdriver.Chrome) -> None:
    _choose(opened, "left", "ppo")
    for place, nasty in enumerate(folders.NASTY):
        _choose(opened, "prompt", str(place))
        wanted = nasty.translate(_PICTURES).replace("\ud83d", "\ufffd")
        _until(opened, lambda wanted=wanted: _texts(opened, "left")[:1] == [wanted])
    assert opened.find_elements(By.CSS_SELECTOR, "main img, main script[src], #left-completions script") == []
    with pytest.raises(Exception, match="no such alert"):
        opened.switch_to.alert.accept()


def test_prompts_are_stepped_searched_and_put_in_order_of_the_biggest_win(opened: webdriver.Chrome) -> None:
    _choose(opened, "right", "base")
    _choose(opened, "left", "ppo")
    prompt = Select(opened.find_element(By.ID, "prompt"))
    opened.find_element(By.ID, "next").click()
    assert prompt.first_selected_option.get_attribute("value") == "1"
    _choose(opened, "order", "left")
    _until(opened, lambda: prompt.first_selected_option.text.startswith("+"))
    gaps = [float(one.text.split()[0]) for one in prompt.options]
    assert gaps == sorted(gaps, reverse=True) and gaps[0] > 0.3
    _choose(opened, "order", "given")
    opened.find_element(By.ID, "search").send_keys("PPO says topic 33")
    _until(opened, lambda: opened.find_element(By.ID, "found").text == "2 of 80 prompts")
    _until(opened, lambda: all("topic 33" in one for one in _texts(opened, "left")))
    opened.find_element(By.ID, "search").send_keys(" no such thing")
    _until(opened, lambda: "No prompt matches" in opened.find_element(By.ID, "prompt-text").text)


def test_one_seed_can_be_looked_at_alone(opened: webdriver.Chrome) -> None:
    assert len(_texts(opened, "left")) == 2 * folders.SAMPLES
    _choose(opened, "seed", "1")
    _until(opened, lambda: len(_texts(opened, "left")) == folders.SAMPLES)
    facts = opened.find_element(By.CSS_SELECTOR, "#left-completions .scores").text
    assert facts.startswith("seed 1, sample 0")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_no_serious_findings_of_axe_and_no_sideways_scroll(opened: webdriver.Chrome, scheme: str, width: int) -> None:
    media = {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
    opened.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
    opened.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        opened.execute_script("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
        opened.execute_script(_AXE.read_text(encoding="utf-8"))
        found = opened.execute_async_script("axe.run().then(arguments[arguments.length - 1])")
        bad = [one for one in found["violations"] if one["impact"] in ("serious", "critical")]
        told = [(one["id"], one["nodes"][0]["html"][:200], one["nodes"][0]["failureSummary"]) for one in bad]
        assert told == []
        wide = opened.execute_script("return document.documentElement.scrollWidth")
        assert wide <= width
    finally:
        opened.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


@pytest.mark.slow
def test_a_large_run_opens_in_two_seconds(browser: webdriver.Chrome, tmp_path: Path) -> None:
    methods = ("sft", "best_of_n", "dpo", "ppo", "rejection_sampling", "cpl", "rest", "hir")
    small, folders.TOPICS, folders.SAMPLES = (folders.TOPICS, folders.SAMPLES), 250, 1
    try:
        path = write_report([folders.quickstart(tmp_path / "large", seeds=(0, 1, 2), methods=methods).path])
    finally:
        folders.TOPICS, folders.SAMPLES = small
    assert path.stat().st_size <= 15e6
    helpers.open_file(browser, path)
    _shown(browser)
    timing = browser.execute_script(
        "const [page] = performance.getEntriesByType('navigation'); return [page.loadEventEnd, performance.now()]"
    )
    assert timing[0] <= 2000, timing
    assert len(Select(browser.find_element(By.ID, "prompt")).options) == 500
    browser.find_element(By.ID, "search").send_keys("topic 249 is")
    _until(browser, lambda: browser.find_element(By.ID, "found").text == "2 of 500 prompts")
    assert helpers.console(browser) == []
