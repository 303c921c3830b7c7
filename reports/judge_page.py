"""The page on which people judge: one file with its own script and style, and the policy that lets it load no other."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from pathlib import Path

import jinja2

_TEMPLATES = Path(__file__).resolve().parent / "templates"


@dataclass(frozen=True)
class JudgePage:
    """A page, and its Content-Security-Policy."""

    html: str
    policy: str


def judge_page(run: str, judge: str) -> JudgePage:
    """Return the page of a run for a judge; completions are no part of it, its script asks for them."""
    script = (_TEMPLATES / "judge.js").read_text(encoding="utf-8")
    style = "".join((_TEMPLATES / name).read_text(encoding="utf-8") for name in ("report.css", "judge.css"))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined
    )
    html = environment.get_template("judge.html.j2").render(run=run, judge=judge, script=script, style=style)
    policy = (
        f"default-src 'none'; script-src {_hash(script)}; style-src {_hash(style)}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return JudgePage(html, policy)


def _hash(source: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()}'"
