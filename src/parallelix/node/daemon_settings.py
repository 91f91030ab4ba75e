"""What a daemon is started with: decided by `start`, from config.toml, the registry and the probe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from parallelix.protocol import messages


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonSettings:
    """`hardware_tier` is the probed one, 1 to 4; `models` an allow-list, empty for all; `hours` as in config.toml."""

    node_id: int
    chain_id: int
    coordinator_url: str
    mode: Literal["gpu", "cpu"]
    hardware: messages.Hardware
    hardware_tier: int
    region: str
    slots: int
    models: tuple[str, ...]
    home: Path
    hours: str = ""
