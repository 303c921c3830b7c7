"""Where public data lies on this machine, if it does."""

from __future__ import annotations

import os
from pathlib import Path


def data_folder(name: str) -> Path | None:
    """Return ``$ALIGNARENA_DATA/NAME`` if it is a folder."""
    data = os.environ.get("ALIGNARENA_DATA")
    folder = Path(data).expanduser() / name if data else None
    return folder if folder is not None and folder.is_dir() else None
