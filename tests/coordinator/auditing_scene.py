"""Nodes driven by hand that audit each other, over a toy model whose every distribution is known.

The text of an answer is that of `WORDS`. Before word i an honest node finds it the likeliest by far, with twenty
alternatives; a node with another model finds something else likely at every place.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate, count
from pathlib import Path
from typing import Any, NoReturn, cast

import httpx
import msgspec
from hand_driven import CATALOGUE, MODEL, HandNode, Opened

from parallelix.coordinator import app, commands, spec
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.engine import events
from parallelix.engine.core import Engine
from parallelix.engine.entities import ApiKey
from parallelix.protocol import canonical, work
from parallelix.protocol.requests import ChatMessage, CreateRequest, RequestView
from parallelix.protocol.work import Entry, Payload

WORDS = ("so", " be", " it", ",", " and", " so", " it", " will", " be", " in", " the", " end")
TEXT = "".join(WORDS)
OFFSETS = (0, *accumulate(len(word) for word in WORDS))
PROMPT_TOKENS = 7
SECONDS_MAX = 20.0
LIVELY: dict[str, Any] = {
    "batch_seconds": 86_400,
    "offline_seconds": 3600,
    "acknowledge_seconds": 600,
    "poll_seconds": 0.1,
    "prepared_percent": 0,
}


def likely(index: int, model: str = "honest") -> tuple[tuple[str, float], ...]:
    """The twenty likeliest tokens before word `index` of an answer, with their log-probabilities."""
    right = (*WORDS, "")[index] if model == "honest" else f" {model}"
    rest = [(f" {model}{index}.{each}", math.log(0.05 * 0.5 ** (each + 1))) for each in range(19)]
    return ((right, math.log(0.95)), *rest)


def executed(model: str = "honest") -> dict[str, Any]:
    """What an executor returns; one with another model scores the same text."""
    entries: list[Entry] = []
    for index, word in enumerate(WORDS):
        top = likely(index, model)[:5]
        own = dict(top).get(word, math.log(1e-9))
        entries.append(Entry(word, own, top))
    return {
        "content": work.ResultContent(text=TEXT, finish_reason="stop"),
        "entries": work.encode_entries(entries),
        "usage": work.Usage(prompt_tokens=PROMPT_TOKENS, completion_tokens=len(WORDS)),
    }


def audited(payload: Payload, model: str = "honest") -> dict[str, Any]:
    """What an auditor returns."""
    assert payload.probes is not None
    indices = [OFFSETS.index(position) for position in payload.probes.positions]
    entries = [Entry((top := likely(index, model))[0][0], top[0][1], top) for index in indices]
    counts = tuple(PROMPT_TOKENS + index for index in indices)
    return {
        "content": work.ResultContent(text="", finish_reason="stop", probe_prompt_tokens=counts),
        "entries": work.encode_entries(entries),
        "usage": work.Usage(prompt_tokens=counts[0], completion_tokens=len(indices)),
    }


def payload_of(opened: Opened) -> Payload:
    return canonical.decode(opened.payload, Payload)


@dataclass(kw_only=True)
class Auditors:
    """A coordinator and its nodes, each of an owner of its own."""

    coordinator: Coordinator
    nodes: dict[int, HandNode]
    key: ApiKey
    secret: str
    http: httpx.AsyncClient
    told: list[tuple[str, dict[str, Any]]]
    _numbers: Iterator[int] = field(default_factory=count)

    @property
    def engine(self) -> Engine:
        return self.coordinator.engine

    @property
    def prepared(self) -> str:
        """The one open audit that tests its auditor."""
        (found,) = (audit_id for audit_id, audit in self.engine.audits.items() if audit.prepared_from)
        return found

    async def create(self, *, more: str = "", **options: Any) -> str:
        message = ChatMessage(role="user", content=f"say so, {next(self._numbers)} times{more}")
        body = CreateRequest(model=MODEL, messages=(message,), temperature=0.0, **options)
        created = await self.coordinator.create(self.key, spec.from_create(body), attached=False)
        return created.request_id

    async def taken(self, unit_id: str) -> tuple[HandNode, Opened]:
        """The unit's open attempt, at the node that has it."""
        await self.until(lambda: self.engine.requests[unit_id].open_attempt)
        await self.coordinator.journal.flushed()
        attempt = self.engine.requests[unit_id].open_attempt
        assert attempt is not None
        node = self.nodes[attempt.node_id]
        return node, await node.take()

    async def executed(self, model: str = "honest", **options: Any) -> tuple[HandNode, str]:
        """A request that is recorded and drawn: who executed it, and its id."""
        request_id = await self.create(**options)
        node, unit = await self.taken(request_id)
        await self.answer(node, unit, executed(model))
        assert self.coordinator.auditing.is_open(request_id)
        return node, request_id

    async def auditing(self, request_id: str) -> tuple[HandNode, Opened]:
        """What an auditor was given of the request's audit."""
        return await self.taken(self.audit_id(request_id))

    def audit_id(self, request_id: str) -> str:
        audit = self.engine.audit_of(request_id)
        assert audit is not None, f"{request_id} was not drawn"
        return audit.audit_id

    async def audit(self, request_id: str, model: str = "honest") -> HandNode:
        node, unit = await self.auditing(request_id)
        await self.answer(node, unit, audited(payload_of(unit), model))
        return node

    async def answer(self, node: HandNode, unit: Opened, result: dict[str, Any]) -> None:
        assert (await node.acknowledge(unit)).status_code == 200
        answer = await node.return_(node.result(unit, **result))
        assert (answer.status_code, answer.json()["accepted"]) == (200, True), answer.text

    async def view(self, request_id: str) -> RequestView:
        return await self.coordinator.view(self.key, request_id)

    async def events(self, request_id: str) -> list[tuple[str, Any]]:
        """The whole stream of a request that has ended."""
        headers = {"authorization": f"Bearer {self.secret}"}
        answer = await self.http.get(f"/v1/requests/{request_id}/events", headers=headers)
        found: list[tuple[str, Any]] = []
        for block in answer.text.split("\n\n"):
            lines = dict(line.split(": ", 1) for line in block.splitlines() if ": " in line)
            if "event" in lines:
                found.append((lines["event"], msgspec.json.decode(lines["data"])))
        return found

    def all_told(self, name: str) -> list[dict[str, Any]]:
        return [fields for each, fields in self.told if each == name]

    async def until(self, holds: Callable[[], object]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not holds():
                await asyncio.sleep(0.01)

    async def until_async(self, holds: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(SECONDS_MAX):
            while not await holds():
                await asyncio.sleep(0.02)


def hand_nodes(number: int) -> dict[int, HandNode]:
    """Nodes of as many owners."""
    return {
        node_id: HandNode(
            http=httpx.AsyncClient(base_url="http://coordinator"),
            node_id=node_id,
            owner=f"0x{node_id:040x}",
            features=("chat", "logprobs", "probe"),
        )
        for node_id in range(1001, 1001 + number)
    }


@asynccontextmanager
async def auditors(folder: Path, nodes: dict[int, HandNode], **settings: Any) -> AsyncGenerator[Auditors]:
    """One process's life."""
    (folder / "registry.json").write_bytes(msgspec.json.encode([node.registration for node in nodes.values()]))
    (folder / "catalogue.toml").write_text(CATALOGUE)
    chosen = msgspec.convert({"data_folder": str(folder), **LIVELY, **settings}, CoordinatorSettings)
    told: list[tuple[str, dict[str, Any]]] = []

    def log(name: str, fields: dict[str, Any]) -> None:
        told.append((name, fields))

    async with app.running(chosen, log=log, on_fatal=_fatal) as coordinator:
        transport = httpx.ASGITransport(cast(Any, build_app(coordinator, OperatorApp(coordinator))))
        async with (
            httpx.AsyncClient(transport=transport, base_url="http://coordinator/api", timeout=30) as operating,
            httpx.AsyncClient(transport=transport, base_url="http://coordinator", timeout=30) as asking,
        ):
            for node in nodes.values():
                node.http = operating
                await node.attach()
            made = commands.new_key()
            if not coordinator.engine.keys:
                await coordinator.settle(events.Grant(grant_id="one", account="acme", amount_wei=10**24))
            await coordinator.issue_key(
                events.KeyIssued(key_id=made.key_id, key_hash=made.key_hash, account="acme", name="test")
            )
            yield Auditors(
                coordinator=coordinator, nodes=nodes, key=coordinator.authenticate(made.secret), secret=made.secret,
                http=asking, told=told,
            )  # fmt: skip
    assert not [fields for name, fields in told if name == "http.unexpected"]


def _fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error
