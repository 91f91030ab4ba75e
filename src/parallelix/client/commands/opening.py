"""The client of one command, and running it to its end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from parallelix.client import config as configs
from parallelix.client.errors import ClientError, KeyRefused, Unauthorised
from parallelix.client.sdk import Client
from parallelix.client.wallets import read_wallet

if TYPE_CHECKING:
    from parallelix.terminal import Console

T = TypeVar("T")

KEY_CODES = ("invalid_api_key", "missing_api_key", "revoked_key", "expired_key")
"""What a new key mends."""


def asked(console: Console, ask: Callable[[Client], Awaitable[T]], *, url: str) -> T:
    """What `ask` gives with a client of the configured coordinator."""
    chosen = configs.load(url=url)
    if not chosen.api_key:
        raise KeyRefused(
            f"no API key for {chosen.url}: run `parallelix login --url {chosen.url}`, or set PARALLELIX_API_KEY"
        )
    return run(console, ask, chosen)


def asked_as(console: Console, ask: Callable[[Client], Awaitable[T]], *, key_file: Path | None, url: str) -> T:
    """What `ask` gives with a client that is signed in with the wallet in `key_file`; without one, as `asked`."""
    if key_file is None:
        return asked(console, ask, url=url)
    wallet = read_wallet(key_file)

    async def signed_in(client: Client) -> T:
        session = await client.sign_in(wallet)
        async with Client(client.base_url, session.token) as own:
            try:
                return await ask(own)
            finally:
                # It would end by itself within the hour.
                with suppress(ClientError):
                    await own.revoke_key(session.id)

    return run(console, signed_in, msgspec.structs.replace(configs.load(url=url), api_key=""))


def run(console: Console, ask: Callable[[Client], Awaitable[T]], chosen: configs.ClientConfig) -> T:
    last = ""

    def told(reason: str) -> None:
        nonlocal last
        if reason != last:
            last = reason
            console.note(f"{reason}; trying again, Ctrl-C to stop")

    async def opened() -> T:
        async with Client(chosen.url, chosen.api_key, told=told) as client:
            return await ask(client)

    try:
        return asyncio.run(opened())
    except Unauthorised as error:
        if error.code not in KEY_CODES:
            raise
        raise Unauthorised(
            f"{error.message}; then run `parallelix login`", code=error.code, status=error.status or 401
        ) from error


def moment(unix_ms: int) -> str:
    return datetime.fromtimestamp(unix_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
