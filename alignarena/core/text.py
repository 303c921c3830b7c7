"""Text from models and logs made safe to show: a completion is data, whatever it holds."""

from __future__ import annotations

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


def printable(text: str) -> str:
    """Return text with control characters shown as pictures and lone surrogates replaced."""
    return text.translate(_PRINTABLE)


def prompt_text(prompt: Any) -> str:
    """Return a prompt as text: as it is, or its messages one after the other."""
    if isinstance(prompt, str):
        return prompt
    return "\n\n".join(f"{message.get('role', '')}: {message.get('content', '')}" for message in prompt)
