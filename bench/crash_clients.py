"""Clients that go on through every crash as good ones do: same Idempotency-Key, Last-Event-ID, until there is an end.

Each intent is one thing that somebody wants once. It keeps all that a coordinator ever told its client, so that an
audit can hold the coordinator to its word.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import aiohttp

from bench.echo_runtime import MODEL
from parallelix.protocol import work

T = TypeVar("T")

Shape: TypeAlias = Literal["native", "events", "stream", "whole", "leaves"]
SHAPES: tuple[Shape, ...] = ("native", "events", "stream", "whole", "leaves")
"""Created and looked at later; followed as events; OpenAI's stream; OpenAI's whole answer; and a stream whose client
does not come back after a crash."""

MAX_TOKENS = 64
IN_FLIGHT_MAX = 300
"""Intents under way; what a coordinator that is down for seven seconds leaves waiting. More would only queue."""
RETRY_SECONDS = 0.1
RETRY_SECONDS_MAX = 0.3
PATIENCE_SECONDS = 90.0
ENDS = frozenset({"completed", "failed", "expired", "cancelled"})
_WORDS = ("amber", "birch", "cedar", "dune", "ember", "fjord", "grove", "heath", "islet", "juniper", "kelp", "lagoon")


@dataclass(kw_only=True)
class Intent:
    """`ids` is every request that was acknowledged for it; `shown` what its client had read at the end."""

    number: int
    shape: Shape
    prompt: str
    key: str
    ids: list[str] = field(default_factory=list[str])
    state: str = ""
    shown: str | None = None
    acknowledged_at: float = 0.0
    problems: list[str] = field(default_factory=list[str])
    over: bool = False
    """Nobody pursues it any more."""

    def acknowledge(self, request_id: str) -> None:
        if not self.ids:
            self.acknowledged_at = time.monotonic()
        if request_id not in self.ids:
            self.ids.append(request_id)

    @property
    def payload(self) -> work.Payload:
        """What the network was asked, as the record's hash covers it."""
        message = work.Message(role="user", content=self.prompt)
        return work.Payload(
            kind="chat", model=MODEL, messages=(message,), sampling=work.Sampling(max_tokens=MAX_TOKENS)
        )

    @property
    def headers(self) -> dict[str, str]:
        return {"idempotency-key": self.key}

    @property
    def body(self) -> dict[str, Any]:
        return {
            "model": MODEL,
            "messages": [{"role": "user", "content": self.prompt}],
            "max_tokens": MAX_TOKENS,
        }


def new_intent(number: int, chance: random.Random) -> Intent:
    words = chance.choices(_WORDS, k=chance.randint(2, 7))
    prompt = " ".join((f"intent-{number}", *words))
    return Intent(number=number, shape=SHAPES[number % len(SHAPES)], prompt=prompt, key=f"intent-{number}")


class Broken(Exception):
    """The connection ended, or the coordinator is not there: nothing was learned."""


class Clients:
    """Sends `rate` new intents a second until `stop`, whatever the coordinator does meanwhile."""

    def __init__(self, url: str, api_key: str, *, rate: float, chance: random.Random) -> None:
        self.intents: list[Intent] = []
        self._rate = rate
        self._chance = chance
        self._tasks: set[asyncio.Task[None]] = set()
        self._sending: asyncio.Task[None] | None = None
        self._http = aiohttp.ClientSession(
            url,
            headers={"authorization": f"Bearer {api_key}"},
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=PATIENCE_SECONDS),
        )

    def start(self) -> None:
        self._sending = asyncio.create_task(self._send())

    async def stop(self) -> None:
        """No new intents until the next `start`; returns when those under way are over."""
        if self._sending is not None:
            self._sending.cancel()
            await asyncio.wait((self._sending,))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=PATIENCE_SECONDS)

    async def aclose(self) -> None:
        for task in (self._sending, *self._tasks):
            if task is not None:
                task.cancel()
        await self._http.close()

    def acknowledged(self) -> dict[str, list[str]]:
        return {intent.key: list(intent.ids) for intent in self.intents if intent.ids}

    async def get(self, path: str) -> tuple[int, bytes]:
        """Status and body, asked until there is an answer."""
        return await _persistently(lambda: self._get(path))

    async def _get(self, path: str) -> tuple[int, bytes]:
        async with self._http.get(path) as answer:
            return answer.status, await answer.read()

    async def _send(self) -> None:
        started_at, before = time.monotonic(), len(self.intents)
        while True:
            due = before + int((time.monotonic() - started_at) * self._rate)
            while len(self.intents) < due and len(self._tasks) < IN_FLIGHT_MAX:
                intent = new_intent(len(self.intents), self._chance)
                self.intents.append(intent)
                task = asyncio.create_task(self._pursue(intent))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            await asyncio.sleep(0.5 / self._rate)

    async def _pursue(self, intent: Intent) -> None:
        pursue: dict[Shape, Callable[[Intent], Awaitable[None]]] = {
            "native": self._create,
            "events": self._create_and_follow,
            "stream": lambda intent: _persistently(lambda: self._stream(intent)),
            "whole": lambda intent: _persistently(lambda: self._whole(intent)),
            "leaves": self._stream_and_leave,
        }
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await pursue[intent.shape](intent)
        except TimeoutError:
            intent.problems.append(f"no end after {PATIENCE_SECONDS:g} s")
        except Exception as error:
            intent.problems.append(f"{type(error).__name__}: {error}")
        finally:
            intent.over = True

    # Native ---------------------------------------------------------------------------------------------------------

    async def _create(self, intent: Intent) -> None:
        async def once() -> None:
            async with self._http.post("/v1/requests", json=intent.body, headers=intent.headers) as answer:
                await _require(answer, 201)
                intent.acknowledge((await answer.json())["id"])

        await _persistently(once)

    async def _create_and_follow(self, intent: Intent) -> None:
        await self._create(intent)
        text = bytearray()
        last_id = ""

        async def once() -> None:
            nonlocal last_id
            path = f"/v1/requests/{intent.ids[0]}/events?detached=true"
            async with self._http.get(path, headers={"last-event-id": last_id} if last_id else {}) as answer:
                await _require(answer, 200)
                async for name, identity, data in events_of(answer):
                    last_id = identity or last_id
                    if name == "delta":
                        # An id may lie inside an entry; what we have of it is written over.
                        text[data["offset"] :] = data["text"].encode()
                    elif name == "attempt.restarted":
                        text.clear()
                    elif name in ENDS:
                        intent.state, intent.shown = name, text.decode()
            _require_end(intent)

        await _persistently(once)

    # OpenAI's shapes --------------------------------------------------------------------------------------------------

    async def _stream_and_leave(self, intent: Intent) -> None:
        """Comes back only while nothing was acknowledged."""

        async def once() -> None:
            try:
                await self._stream(intent)
            except _NOT_THERE:
                if not intent.ids:
                    raise

        await _persistently(once)

    async def _stream(self, intent: Intent) -> None:
        body = {**intent.body, "stream": True}
        text = ""
        async with self._http.post("/v1/chat/completions", json=body, headers=intent.headers) as answer:
            await _require(answer, 200)
            intent.acknowledge(answer.headers["x-parallelix-request"])
            async for _name, _id, data in events_of(answer):
                if data is None:
                    intent.state, intent.shown = "completed", text
                elif "error" in data:
                    intent.state = data["error"]["code"]
                else:
                    text += "".join(choice["delta"].get("content") or "" for choice in data["choices"])
        _require_end(intent)

    async def _whole(self, intent: Intent) -> None:
        async with self._http.post("/v1/chat/completions", json=intent.body, headers=intent.headers) as answer:
            await _require(answer, 200)
            intent.acknowledge(answer.headers["x-parallelix-request"])
            choice = (await answer.json())["choices"][0]
            intent.state, intent.shown = "completed", choice["message"]["content"]


_NOT_THERE = (Broken, aiohttp.ClientError, ConnectionError)


async def _persistently(call: Callable[[], Awaitable[T]]) -> T:
    """Calls until somebody answers, ever more slowly, so that a coordinator that comes back is not run over."""
    delay_seconds = RETRY_SECONDS
    while True:
        try:
            return await call()
        except _NOT_THERE:
            await asyncio.sleep(random.uniform(0.5, 1) * delay_seconds)
            delay_seconds = min(2 * delay_seconds, RETRY_SECONDS_MAX)


async def _require(answer: aiohttp.ClientResponse, status: int) -> None:
    """Raises `Broken` for a coordinator that cannot answer now, `ValueError` for any other refusal."""
    if answer.status == 503:
        raise Broken
    if answer.status != status:
        raise ValueError(f"{answer.url.path}: {answer.status} {(await answer.text())[:200]}")


def _require_end(intent: Intent) -> None:
    if not intent.state:
        raise Broken


async def events_of(answer: aiohttp.ClientResponse) -> AsyncIterator[tuple[str, str, Any]]:
    """(name, id, data) of each server-sent event; data is None for `[DONE]`."""
    name = identity = data = ""
    async for raw in answer.content:
        line = raw.decode().rstrip("\n")
        if not line:
            if data:
                yield name, identity, None if data == "[DONE]" else json.loads(data)
            name = identity = data = ""
        elif line.startswith("id: "):
            identity = line[4:]
        elif line.startswith("event: "):
            name = line[7:]
        elif line.startswith("data: "):
            data = line[6:]
