"""The client of one command, and running it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TypeVar

from parallelix.client import config as configs
from parallelix.client.errors import KeyRefused, Unauthorised
from parallelix.client.sdk import Client

if TYPE_CHECKING:
    from parallelix.terminal import Console

T = TypeVar("T")


def asked(console: Console, ask: Callable[[Client], Awaitable[T]], *, url: str) -> T:
    """What `ask` gives with a client of the configured coordinator."""
    chosen = configs.load(url=url)
    if not chosen.api_key:
        raise KeyRefused(
            f"no API key for {chosen.url}: run `parallelix login --url {chosen.url}`, or set PARALLELIX_API_KEY"
        )
    return run(console, ask, chosen)


def run(console: Console, ask: Callable[[Client], Awaitable[T]], chosen: configs.ClientConfig) -> T:
    waited = False

    async def pause(seconds: float) -> None:
        nonlocal waited
        if not waited:
            waited = True
            console.note(f"{chosen.url} does not answer yet; trying again, Ctrl-C to stop")
        await asyncio.sleep(seconds)

    async def opened() -> T:
        async with Client(chosen.url, chosen.api_key, sleep=pause) as client:
            return await ask(client)

    try:
        return asyncio.run(opened())
    except Unauthorised as error:
        raise Unauthorised(
            f"{error.message}; then run `parallelix login`", code=error.code, status=error.status or 401
        ) from error


def moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
