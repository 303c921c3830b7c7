"""Text from models and logs made safe for each place that it is shown in."""

from __future__ import annotations

import json
from typing import Any

from alignarena.core.text import MARKDOWN, printable

__all__ = ["LATEX", "MARKDOWN", "printable", "script_json"]

LATEX = str.maketrans(
    {
        **{sign: f"\\{sign}" for sign in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "\n": " ",
    }
)


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in, whatever text it holds.

    Plain ASCII: U+2028 and U+2029, bidirectional marks and lone surrogates are escapes; so are ``<``, ``>`` and ``&``.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
