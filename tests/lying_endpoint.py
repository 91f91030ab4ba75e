"""An endpoint between a chain and whoever reads it, which may lie, refuse, hang or be gone."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import ClientSession, web

import services

Twist = Callable[[str, list[Any], Any], Any]
"""Given a method, its parameters and the true result: what to tell instead."""


class Refusal(Exception):
    """Raised by a twist: the endpoint answers with this error."""


class Gone(Exception):
    """Raised by a twist: the connection breaks."""


class Hang(Exception):
    """Raised by a twist: no answer ever comes."""


class Endpoint:
    """Honest until `twist` is set."""

    def __init__(self, chain_url: str, session: ClientSession) -> None:
        self._chain_url = chain_url
        self._session = session
        self.url = ""
        self.twist: Twist | None = None
        self.asked: Counter[str] = Counter()

    def be_honest(self) -> None:
        self.twist = None

    async def answer(self, request: web.Request) -> web.Response:
        question: dict[str, Any] = await request.json()
        self.asked[question["method"]] += 1
        async with self._session.post(self._chain_url, json=question) as asked:
            answer: dict[str, Any] = await asked.json()
        if self.twist is not None and "result" in answer:
            try:
                answer["result"] = self.twist(question["method"], question["params"], answer["result"])
            except Refusal as refusal:
                error = {"code": -32000, "message": str(refusal)}
                answer = {"jsonrpc": "2.0", "id": question["id"], "error": error}
            except Gone:
                assert request.transport is not None
                request.transport.abort()
            except Hang:
                await asyncio.sleep(3600)
        return web.json_response(answer)


@asynccontextmanager
async def endpoint_of(chain_url: str) -> AsyncGenerator[Endpoint]:
    async with ClientSession() as session:
        endpoint = Endpoint(chain_url, session)
        application = web.Application(client_max_size=2**22)
        application.router.add_post("/", endpoint.answer)
        runner = web.AppRunner(application, shutdown_timeout=0.1)
        await runner.setup()
        port = services.free_port()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        endpoint.url = f"http://127.0.0.1:{port}"
        try:
            yield endpoint
        finally:
            await runner.cleanup()
