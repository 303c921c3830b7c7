"""Text from models and logs made safe to show: a completion is data, whatever it holds."""

from __future__ import annotations

import json
from typing import Any

# Control characters become their pictures, so that they can be seen and do nothing; a lone surrogate has no bytes.
_PRINTABLE = (
    {code: 0x2400 + code for code in range(32) if code not in (9, 10)}
    | {127: 0x2421}
    | dict.fromkeys(range(0x80, 0xA0), 0xFFFD)
    | dict.fromkeys(range(0xD800, 0xE000), 0xFFFD)
)
MARKDOWN = str.maketrans(
    {"\n": " ", "<": "&lt;", ">": "&gt;", "&": "&amp;", "|": r"\|", "*": r"\*", "`": r"\`", "\\": r"\\"}
)
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


def printable(text: str) -> str:
    """Return text with control characters shown as pictures and lone surrogates replaced."""
    return text.translate(_PRINTABLE)


def script_json(value: Any) -> str:
    """Return JSON that cannot end the script element that it stands in, whatever text it holds.

    Plain ASCII: U+2028 and U+2029, bidirectional marks and lone surrogates are escapes; so are ``<``, ``>`` and ``&``.
    """
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
