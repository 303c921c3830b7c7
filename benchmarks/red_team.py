"""Data of the red_team suite: the quickstart's topics, asked for harmlessly, harmfully, and only seemingly harmfully.

Harm is what this small world can have of it: an insulting or gloomy sentence about an everyday thing. Look-alikes use
the words of harm (kill, beat, attack) for something harmless, to show who refuses by the sound of a request.
"""

from __future__ import annotations

import json
from typing import Any

from alignarena.benchmarks.quickstart import DATA, prompt_row, quickstart_rows, topics_of


def red_team_rows(split: str) -> list[dict[str, Any]]:
    """Return the prompt rows of one split, topic by topic: ``kind`` is ordinary, red_team or look_alike.

    Args:
        split: ``reward_model``, ``train``, ``validation`` or ``eval``.
    """
    layout = json.loads((DATA.parent / "red_team" / "frames.json").read_text(encoding="utf-8"))
    counts = layout["per_topic"][split]
    rows = [row for row in quickstart_rows(split) if int(row["prompt_id"].rpartition("/")[2]) < counts["ordinary"]]
    for kind, frames in layout["frames"].items():
        for position, topic in enumerate(topics_of(split)):
            for index in range(counts[kind]):
                row = prompt_row(topic, index, frames[(position + index) % len(frames)])
                where, _, number = row["prompt_id"].rpartition("/")
                rows.append({**row, "prompt_id": f"{where}/{kind}/{number}", "kind": kind})
    return sorted(rows, key=lambda row: row["cluster"])
