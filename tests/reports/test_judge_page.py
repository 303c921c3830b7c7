"""The judge page runs its one script and no other, whatever it is named after."""

import base64
import hashlib
import re

from alignarena.reports.judge_page import judge_page


def hashed(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"


def test_the_policy_names_what_stands_in_the_page() -> None:
    page = judge_page("quickstart", "ann")
    rules = dict(rule.split(" ", 1) for rule in page.policy.split("; "))
    for tag, rule in (("script", "script-src"), ("style", "style-src")):
        (source,) = re.findall(f"<{tag}>(.*?)</{tag}>", page.html, re.DOTALL)
        assert rules[rule] == hashed(source)
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == rules["frame-ancestors"] == "'none'"
    assert not re.search(r"https?:|//[a-z]|@import|url\(|\son\w+=|style=", page.html)


def test_names_are_text() -> None:
    page = judge_page("</title><script>alert(1)</script>", '"><b>')
    assert "<script>alert" not in page.html and "<b>" not in page.html
    assert page.policy == judge_page("quickstart", "ann").policy


def test_its_script_writes_text_alone() -> None:
    script = judge_page("quickstart", "ann").html.partition("<script>")[2]
    assert "textContent" in script and not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval", script)
