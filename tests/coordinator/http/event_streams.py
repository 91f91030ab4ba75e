"""Reading server-sent events as a client does."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import msgspec


@dataclass(frozen=True, kw_only=True)
class Event:
    name: str
    id: str
    data: Any
    """Decoded JSON, or the text `[DONE]`."""


async def events_of(response: httpx.Response) -> AsyncGenerator[Event]:
    name = identity = data = ""
    async for line in response.aiter_lines():
        if not line:
            if data:
                yield Event(name=name, id=identity, data=data if data == "[DONE]" else msgspec.json.decode(data))
            name = data = ""
        elif line.startswith("id: "):
            identity = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]


async def all_events(response: httpx.Response) -> list[Event]:
    return [event async for event in events_of(response)]
