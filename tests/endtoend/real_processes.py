"""Scenes for tests with a real coordinator process and real node processes, whose model says the prompt back slowly."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from bench.crash_clients import events_of
from bench.echo_node import echo_node
from bench.echo_runtime import CONTEXT_TOKENS, DIGEST, MODEL
from parallelix.devnet.network import Network, NodeCommand, Plan, catalogue_entry
from parallelix.protocol import requests

WORD_SECONDS = 0.05
PATIENCE_SECONDS = 60.0
SETTINGS: dict[str, Any] = {
    "batch_seconds": 0.3,
    "heartbeat_seconds": 0.5,
    "client_grace_seconds": 0.5,
    "cancel_grace_seconds": 10.0,
    "orphan_seconds": 6.0,
    "restart_grace_seconds": 20.0,
}
CATALOGUE = catalogue_entry(MODEL, DIGEST, context_tokens=CONTEXT_TOKENS)


@dataclass(kw_only=True)
class Scene:
    network: Network
    client: Client


@asynccontextmanager
async def scene(
    folder: Path,
    *,
    nodes: int = 1,
    command: NodeCommand | None = None,
    catalogue: str = CATALOGUE,
    port: int = 0,
    started: int | None = None,
    **settings: Any,
) -> AsyncGenerator[Scene]:
    """A network with its nodes online, all or the first `started` of them, and a client with credits."""
    network = Network(
        Plan(
            folder=folder,
            catalogue=catalogue,
            node_command=command or echo_node(pause_seconds=WORD_SECONDS),
            node_count=nodes,
            settings={**SETTINGS, **settings},
            port=port,
        )
    )
    await asyncio.to_thread(network.prepare)
    client = Client(network.url, network.new_key())
    try:
        await network.start_coordinator()
        first = nodes if started is None else started
        for number in range(1, first + 1):
            network.start_node(number)
        await network.online(first)
        yield Scene(network=network, client=client)
    finally:
        await client.aclose()
        await network.stop()


class Client:
    def __init__(self, url: str, api_key: str) -> None:
        self._http = aiohttp.ClientSession(
            url,
            headers={"authorization": f"Bearer {api_key}"},
            timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
        )

    async def aclose(self) -> None:
        await self._http.close()

    async def create(self, prompt: str, *, key: str = "", **body: Any) -> str:
        """The id of a native request."""
        async with self._http.post("/v1/requests", json=chat(prompt, **body), headers=keyed(key)) as answer:
            assert answer.status == 201, await answer.text()
            return (await answer.json())["id"]

    async def view(self, request_id: str) -> requests.RequestView:
        async with self._http.get(f"/v1/requests/{request_id}") as answer:
            assert answer.status == 200, await answer.text()
            return msgspec.json.decode(await answer.read(), type=requests.RequestView)

    async def ended(self, request_id: str) -> requests.RequestView:
        return await eventually(lambda: self.view(request_id), lambda view: view.finished_at is not None)

    async def get(self, path: str) -> Any:
        async with self._http.get(path) as answer:
            assert answer.status == 200, await answer.text()
            return await answer.json()

    async def cancel(self, request_id: str) -> None:
        async with self._http.delete(f"/v1/requests/{request_id}") as answer:
            assert answer.status == 200, await answer.text()

    @asynccontextmanager
    async def events(self, request_id: str, *, after: str = "", detached: bool = True) -> AsyncGenerator[Stream]:
        path = f"/v1/requests/{request_id}/events?detached={str(detached).lower()}"
        async with self._http.get(path, headers={"last-event-id": after} if after else {}) as answer:
            assert answer.status == 200, await answer.text()
            yield Stream(answer)

    @asynccontextmanager
    async def openai_stream(self, prompt: str, *, key: str = "") -> AsyncGenerator[Stream]:
        body = chat(prompt, stream=True)
        async with self._http.post("/v1/chat/completions", json=body, headers=keyed(key)) as answer:
            assert answer.status == 200, await answer.text()
            yield Stream(answer)


class Stream:
    """What one connection showed. `text` is put together from native deltas or from OpenAI's chunks."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self.request_id = answer.headers["x-parallelix-request"]
        self.text = ""
        self.last_id = ""
        self.names: list[str] = []
        self.offsets: list[int] = []
        self.error = ""
        self.done = False
        self._events: AsyncIterator[tuple[str, str, Any]] = events_of(answer)
        self._answer = answer

    async def until(self, holds: Callable[[], bool]) -> None:
        """Reads on until `holds`; raises AssertionError when the stream ends before."""
        while not holds():
            assert await self._next(), f"the stream ended with {self.names} {self.text!r}"

    async def to_end(self) -> Stream:
        while await self._next():
            pass
        return self

    def close(self) -> None:
        self._answer.close()

    async def _next(self) -> bool:
        async for name, identity, data in self._events:
            self.last_id = identity or self.last_id
            self._take(name, data)
            return True
        return False

    def _take(self, name: str, data: Any) -> None:
        self.names.append(name)
        if data is None:
            self.done = True
        elif name == "delta":
            self.offsets.append(data["offset"])
            self.text += data["text"]
        elif name == "attempt.restarted":
            self.text = ""
        elif "error" in data:
            self.error = data["error"]["code"]
        elif "choices" in data:
            self.text += "".join(choice["delta"].get("content") or "" for choice in data["choices"])


def chat(prompt: str, **body: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], "max_tokens": 200, **body}


def keyed(key: str) -> dict[str, str]:
    return {"idempotency-key": key} if key else {}


def words(count: int, name: str = "word") -> str:
    return " ".join(f"{name}{number}" for number in range(count))


async def eventually(look: Callable[[], Awaitable[Any]], holds: Callable[[Any], bool]) -> Any:
    """What `look` finds as soon as it `holds`."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not holds(found := await look()):
            await asyncio.sleep(0.05)
        return found


def logged(network: Network, event: str) -> list[dict[str, Any]]:
    """The coordinator's log lines of one kind."""
    lines = (line for line in network.coordinator_log.read_text().splitlines() if line.startswith("{"))
    return [line for line in map(json.loads, lines) if line["event"] == event]
