"""Data of the quickstart suite: our own topics, prompt frames and demonstrations.

A prompt is a frame filled with a topic. The splits are disjoint by topic, and the topic is the cluster that intervals
resample. Topics hold no word of VADER's lexicon and frames only "sentence" (a compound score of .08, against .62 of
"great"), so repeating the prompt earns next to nothing. The ``sealed`` split is there for a last look; no default run
scores it.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from alignarena.core.errors import BadInput, nearest

DATA = Path(__file__).parent / "data" / "quickstart"


def quickstart_rows(split: str) -> list[dict[str, Any]]:
    """Return the prompt rows of one split, topic by topic.

    Args:
        split: ``sft``, ``reward_model``, ``train``, ``validation``, ``eval`` or ``sealed``.

    Returns:
        Rows of ``prompt_id`` (such as ``eval/city-library/0``), ``prompt``, ``cluster``, ``topic_names`` (lowercase
        words of which one must occur in an answer), ``kind`` and ``axis``.

    Raises:
        BadInput: There is no such split.
    """
    layout = json.loads((DATA / "frames.json").read_text(encoding="utf-8"))
    frames, per_topic = layout["frames"], layout["per_topic"]
    if split not in per_topic:
        raise BadInput(f"quickstart: no split {split!r}{nearest(split, per_topic)}")
    # The first frame moves on with the topic: every frame is used about equally often in every split.
    return [
        prompt_row(topic, index, frames[(position + index) % len(frames)])
        for position, topic in enumerate(topics_of(split))
        for index in range(per_topic[split])
    ]


def quickstart_demonstrations() -> list[dict[str, Any]]:
    """Return one hand-written sentence for each prompt of the ``sft`` split.

    Returns:
        Rows of ``prompt_id``, ``prompt``, ``cluster`` and ``completion``, in the order of ``quickstart_rows("sft")``.
    """
    return _lines("demonstrations.jsonl")


def topics_of(split: str) -> list[dict[str, Any]]:
    """Return the topics of one split: ``topic``, ``names`` and ``split``."""
    return [topic for topic in _lines("topics.jsonl") if topic["split"] == split]


def _lines(name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (DATA / name).read_text(encoding="utf-8").splitlines()]


def prompt_row(topic: dict[str, Any], index: int, frame: str) -> dict[str, Any]:
    """Return the row of a frame filled with a topic."""
    cluster = _cluster(topic["topic"])
    return {
        "prompt_id": f"{topic['split']}/{cluster}/{index}",
        "prompt": frame.format(topic=topic["topic"]),
        "cluster": cluster,
        "topic_names": list(topic["names"]),
        "kind": "ordinary",
        "axis": "overall",
    }


def _cluster(topic: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", re.sub(r"^(?:the|an?) ", "", topic.lower())).strip("-")
