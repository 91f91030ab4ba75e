"""What the options of a command say about the chain to ask; without a word of the chain's own software."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Which chain to ask for a batch, and how many blocks have to lie above it."""

    deployment: Path
    rpc: str
    confirmations: int
