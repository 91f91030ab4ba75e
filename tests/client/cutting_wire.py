"""TCP between a client and a coordinator, which a test can break in the ways that networks break."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class CuttingWire:
    """`swallow` of the next answers get lost: the coordinator gives them, and the connection breaks instead."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._open: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self.url = ""
        self.swallow = 0
        self.connections = 0

    @classmethod
    @asynccontextmanager
    async def to(cls, url: str) -> AsyncGenerator[CuttingWire]:
        parts = urlsplit(url)
        assert parts.hostname is not None and parts.port is not None
        wire = cls(parts.hostname, parts.port)
        server = await asyncio.start_server(wire._connected, "127.0.0.1", 0)
        wire.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield wire
        finally:
            server.close()
            wire.cut()
            await asyncio.gather(*wire._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets every connection there is now."""
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self.connections += 1
        there_reader, there_writer = await asyncio.open_connection(*self._target)
        self._open |= {writer, there_writer}
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, there_writer, answers=False))
                group.create_task(self._pump(there_reader, writer, answers=True))
        finally:
            self._open -= {writer, there_writer}
            for each in (writer, there_writer):
                each.transport.abort()
            self._tasks.discard(task)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65536):
                if answers and self.swallow > 0:
                    self.swallow -= 1
                    writer.transport.abort()
                    return
                writer.write(data)
                await writer.drain()
        writer.close()
