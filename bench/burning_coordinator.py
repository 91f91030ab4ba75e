"""`python -m bench.burning_coordinator FOLDER`: the coordinator, made dearer on purpose by two milliseconds of CPU for
each request, so that a measurement can show that it would notice."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import uvloop

from parallelix.coordinator.app import running
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.http.server import Server
from parallelix.coordinator.logging import make_log
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.settings import load

BURN_MS = 2.0
PATH = "/v1/chat/completions"


class Burning:
    """Stands before the coordinator's application."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(
        self, scope: Any, receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Awaitable[None]]
    ) -> None:
        if scope["path"] == PATH:
            burn(BURN_MS)
        await self._app(scope, receive, send)


def burn(milliseconds: float) -> None:
    ends_at = time.thread_time() + milliseconds / 1000
    while time.thread_time() < ends_at:
        pass


async def serve(folder: Path) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    settings, log = load(folder), make_log(sys.stderr)
    async with running(settings, log=log, on_fatal=_fatal) as coordinator:
        app: Any = Burning(build_app(coordinator, OperatorApp(coordinator)))
        async with Server(app, host=settings.host, port=settings.port).serving():
            await stopping.wait()
            coordinator.stop()


def _fatal(error: BaseException) -> None:
    sys.stderr.write(f"{error!r}\n")
    os._exit(70)


if __name__ == "__main__":
    uvloop.run(serve(Path(sys.argv[1])))
