"""What may be logged of an error that nobody expected: its name and where it arose.

Its text is left out, because it may quote what somebody sent.
"""

from __future__ import annotations

import traceback
from pathlib import Path
from typing import Any

FRAMES_MAX = 8


def facts(path: str, error: BaseException) -> dict[str, Any]:
    frames = traceback.extract_tb(error.__traceback__)[-FRAMES_MAX:]
    at = [f"{Path(frame.filename).name}:{frame.lineno}:{frame.name}" for frame in frames]
    return {"path": path, "error": type(error).__name__, "at": at}
