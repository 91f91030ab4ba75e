"""Parts of ParalleliX that a requester need not install: what to do where a command needs one."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from parallelix.client.errors import ExtraMissing


@contextmanager
def needing(extra: str) -> Generator[None]:
    """Imports inside it that fail for want of a library raise `ExtraMissing`."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "parallelix"):
            raise
        raise ExtraMissing(
            f"this command needs {missing}, which is not installed; run: pip install 'parallelix[{extra}]'"
        ) from error
