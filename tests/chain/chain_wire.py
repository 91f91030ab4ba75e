"""A wire between a deployment and its chain that can be cut before or after any request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web

import services

Cut = Callable[[str, int], str]
"""Given a method and how often it was asked since the wire was mended: what to do.

"" passes it on, "before" and "after" cut the wire, "hang" never answers, "empty" answers that there is nothing yet.
"""


class Wire:
    """Once cut it stays dead, as for a process that was killed, until it is mended."""

    def __init__(self, url: str, session: ClientSession) -> None:
        self._url = url
        self._session = session
        self._cut: Cut = lambda _method, _count: ""
        self._dead = False
        self._asked: dict[str, int] = {}
        self.hanging = asyncio.Event()
        self.requests = 0

    def mend(self, cut: Cut | None = None) -> None:
        self._cut = cut or (lambda _method, _count: "")
        self._dead = False
        self._asked = {}
        self.requests = 0

    async def answer(self, request: web.Request) -> web.Response:
        question: dict[str, Any] = await request.json()
        method = question["method"]
        self.requests += 1
        self._asked[method] = self._asked.get(method, 0) + 1
        cut = "before" if self._dead else self._cut(method, self._asked[method])
        if cut == "empty":
            return web.json_response({"jsonrpc": "2.0", "id": question["id"], "result": None})
        self._dead = bool(cut)
        if cut == "hang":
            self.hanging.set()
            await asyncio.sleep(3600)
        if cut == "before":
            return dead(question)
        async with self._session.post(self._url, json=question) as asked:
            answer = await asked.read()
        return dead(question) if cut else web.Response(body=answer, content_type="application/json")


def dead(question: dict[str, Any]) -> web.Response:
    """An error of JSON-RPC, since a lost connection is tried again for a while."""
    error = {"code": -32000, "message": "the wire was cut"}
    return web.json_response({"jsonrpc": "2.0", "id": question["id"], "error": error})


@asynccontextmanager
async def wire_to(url: str) -> AsyncGenerator[tuple[Wire, str]]:
    """The wire, and the URL of its near end."""
    session = ClientSession()
    wire = Wire(url, session)
    application = web.Application(client_max_size=2**22)
    application.router.add_post("/", wire.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = services.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield wire, f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
        await session.close()
