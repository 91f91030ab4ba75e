"""The events of a contract's latest call, in order, as tests compare them."""

from __future__ import annotations

from typing import Any


def events_of(contract: Any) -> list[tuple[str, dict[str, Any]]]:
    """Name and fields of each event that the latest call of `contract` logged, also in contracts it called."""
    return [(type(log).__name__, fields_of(log)) for log in contract.get_logs()]


def fields_of(log: Any) -> dict[str, Any]:
    return {name: value for name, value in log._asdict().items() if name != "address"}
