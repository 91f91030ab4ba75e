"""A plain TCP relay that keeps every byte it passes on, as somebody on the line would see it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager

CHUNK_BYTES = 64 * 1024


class Relay:
    """`up` is what callers sent, `down` what they were answered; connections lie one after the other."""

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self._target_port = target_port
        self._up: list[bytearray] = []
        self._down: list[bytearray] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def up(self) -> bytes:
        return b"\n".join(self._up)

    @property
    def down(self) -> bytes:
        return b"\n".join(self._down)

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[Relay]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        async with server:
            yield self
            server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up, down = bytearray(), bytearray()
        self._up.append(up)
        self._down.append(down)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._target_port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, back, up.extend), _pass_on(there, writer, down.extend))


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, keep: Callable[[bytes], None]) -> None:
    """Until one side is done; then the other hears of it."""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK_BYTES):
            keep(data)
            writer.write(data)
            await writer.drain()
    writer.close()
