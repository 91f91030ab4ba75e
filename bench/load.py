"""A client that keeps a number of requests in flight, and counts as completed only what was answered rightly."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import msgspec

from bench.stopwatch import cpu_seconds

CALL_SECONDS = 120.0
_EVENT = b"data: "
_DONE = b"data: [DONE]"


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message = msgspec.field(default_factory=_Message)
    delta: _Message = msgspec.field(default_factory=_Message)


class _Answer(msgspec.Struct):
    choices: list[_Choice] = []


_ANSWER = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One kind of call: where, with which key, which body, and the one right answer."""

    url: str
    key: str
    body: bytes
    text: str
    streams: bool = False


@dataclass(slots=True, kw_only=True)
class Drive:
    """What a run of calls came to. Times in milliseconds; `cpu_seconds` is the watched process's."""

    latencies_ms: list[float] = field(default_factory=list[float])
    first_ms: list[float] = field(default_factory=list[float])
    errors: list[str] = field(default_factory=list[str])
    seconds: float = 0.0
    cpu_seconds: float = 0.0

    @property
    def completed(self) -> int:
        return len(self.latencies_ms)

    @property
    def cpu_ms_per_request(self) -> float:
        return self.cpu_seconds * 1000 / self.completed if self.completed else float("inf")

    @property
    def requests_per_core_second(self) -> float:
        return self.completed / self.cpu_seconds


class Wrong(Exception):
    """An answer that does not count, and why."""


def chat_body(model: str, prompt: str, *, max_tokens: int, stream: bool = False, queue_seconds: float = 0) -> bytes:
    """A chat completion as any OpenAI client sends it."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": max_tokens}
    if stream:
        body["stream"] = True
    if queue_seconds:
        body["parallelix"] = {"queue_seconds": queue_seconds}
    return msgspec.json.encode(body)


async def drive(
    target: Target, *, requests: int, in_flight: int, watched_pid: int, spread_seconds: float = 0.0
) -> Drive:
    """Makes `requests` calls, `in_flight` at a time. `spread_seconds` is over how long the first ones are begun."""
    done, left = Drive(), iter(range(requests))
    connector = aiohttp.TCPConnector(limit=0)
    headers = {"authorization": f"Bearer {target.key}", "content-type": "application/json"}
    timeout = aiohttp.ClientTimeout(total=CALL_SECONDS)
    async with aiohttp.ClientSession(connector=connector, headers=headers, timeout=timeout) as http:

        async def work(number: int) -> None:
            await asyncio.sleep(spread_seconds * number / in_flight)
            for _ in left:
                await _call(http, target, done)

        cpu_before, started = cpu_seconds(watched_pid), time.perf_counter()
        await asyncio.gather(*(work(number) for number in range(in_flight)))
        done.seconds = time.perf_counter() - started
        done.cpu_seconds = cpu_seconds(watched_pid) - cpu_before
    return done


async def _call(http: aiohttp.ClientSession, target: Target, done: Drive) -> None:
    started = time.perf_counter()

    def elapsed_ms() -> float:
        return (time.perf_counter() - started) * 1000

    try:
        async with http.post(target.url, data=target.body) as response:
            if response.status != 200:
                raise Wrong(f"status {response.status}: {(await response.read())[:200]!r}")
            if target.streams:
                first_ms, text = await _read_stream(response, elapsed_ms)
            else:
                first_ms, text = 0.0, _ANSWER.decode(await response.read()).choices[0].message.content
        if text != target.text:
            raise Wrong(f"another text than the runtime's: {text!r}")
    except (Wrong, TimeoutError, aiohttp.ClientError, msgspec.DecodeError, IndexError) as error:
        done.errors.append(f"{type(error).__name__}: {error}")
        return
    done.latencies_ms.append(elapsed_ms())
    if target.streams:
        done.first_ms.append(first_ms)


async def _read_stream(response: aiohttp.ClientResponse, elapsed_ms: Callable[[], float]) -> tuple[float, str]:
    """When the first text came, and all of it. Raises `Wrong` for a stream that breaks off."""
    first_ms, texts, ended = 0.0, list[str](), False
    async for line in response.content:
        if line.startswith(_DONE):
            ended = True
        elif line.startswith(_EVENT):
            for choice in _ANSWER.decode(line[len(_EVENT) :]).choices:
                if choice.delta.content:
                    first_ms = first_ms or elapsed_ms()
                    texts.append(choice.delta.content)
    if not ended:
        raise Wrong("the stream ended without [DONE]")
    return first_ms, "".join(texts)
