"""The client of one command, and running it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from parallelix.client import config as configs
from parallelix.client.errors import KeyRefused, Unauthorised
from parallelix.client.sdk import Client

T = TypeVar("T")


def asked(ask: Callable[[Client], Awaitable[T]], *, url: str) -> T:
    """What `ask` gives with a client of the configured coordinator."""
    chosen = configs.load(url=url)
    if not chosen.api_key:
        raise KeyRefused(
            f"no API key for {chosen.url}: run `parallelix login --url {chosen.url}`, or set PARALLELIX_API_KEY"
        )
    return run(ask, chosen)


def run(ask: Callable[[Client], Awaitable[T]], chosen: configs.ClientConfig) -> T:
    async def opened() -> T:
        async with Client(chosen.url, chosen.api_key) as client:
            return await ask(client)

    try:
        return asyncio.run(opened())
    except Unauthorised as error:
        raise Unauthorised(
            f"{error.message}; then run `parallelix login`", code=error.code, status=error.status or 401
        ) from error


def moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
