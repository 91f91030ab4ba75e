"""Collects what a network has to show for itself: over HTTP as a requester and as anyone, and from its own folder."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any, Self, TypeVar

import httpx
import msgspec

from parallelix.coordinator import secrets
from parallelix.coordinator.steps import EVENT, STEPS
from parallelix.coordinator.store.backend import Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.devnet.evidence import Evidence
from parallelix.devnet.network import Network
from parallelix.engine.rows import AttemptRow, BatchRow, RecordRow, TransferRow
from parallelix.protocol.receipts import Receipt
from parallelix.protocol.records import GENESIS_HASH, decode_record
from parallelix.protocol.requests import CreateRequest, NetworkView, RequestList, RequestView

T = TypeVar("T")

CALLS_AT_ONCE = 8
CALL_SECONDS = 60.0
PAGE = 100

_SERVED = re.compile(r"^(\S+) served (?:req|sub)_…([0-9a-f]{8}) .*return_ms=(\d+)", re.MULTILINE)


class Requester:
    """One API key's view of a network, and what is open to anyone."""

    def __init__(self, url: str, api_key: str) -> None:
        self._calls = asyncio.Semaphore(CALLS_AT_ONCE)
        self._http = httpx.AsyncClient(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}", "Content-Type": "application/json"},
            timeout=CALL_SECONDS,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            verify=False,
        )

    async def create(self, body: CreateRequest) -> str:
        """The id that was acknowledged. As many calls at once as there are callers."""
        answer = await self._http.post("/v1/requests", content=msgspec.json.encode(body))
        return msgspec.json.decode(answer.raise_for_status().content)["id"]

    async def views(self) -> dict[str, RequestView]:
        """All requests of the key's account, without their results."""
        found: dict[str, RequestView] = {}
        cursor = ""
        while True:
            page = await self._read(f"/v1/requests?limit={PAGE}{cursor and f'&cursor={cursor}'}", RequestList)
            found.update((view.id, view) for view in page.data)
            if page.next_cursor is None:
                return found
            cursor = page.next_cursor

    async def view(self, request_id: str) -> RequestView:
        return await self._read(f"/v1/requests/{request_id}", RequestView)

    async def receipt(self, request_id: str) -> Receipt:
        return await self._read(f"/v1/requests/{request_id}/receipt", Receipt)

    async def network(self) -> NetworkView:
        return await self._read("/v1/network", NetworkView)

    async def record(self, record_hash: str) -> bytes:
        return (await self._get(f"/v1/records/{record_hash}")).content

    async def close(self) -> None:
        await self._http.aclose()

    async def _read(self, path: str, kind: type[T]) -> T:
        return msgspec.json.decode((await self._get(path)).content, type=kind)

    async def _get(self, path: str) -> httpx.Response:
        async with self._calls:
            return (await self._http.get(path)).raise_for_status()


async def gather(network: Network, requester: Requester, store: Store, asked: Mapping[str, CreateRequest]) -> Evidence:
    """Everything that can be checked, once the network is at rest."""
    known = await requester.views()
    views = await asyncio.gather(*map(requester.view, known))
    recorded = [view.id for view in views if view.record_hash is not None]
    receipts = await asyncio.gather(*map(requester.receipt, recorded))
    head_hash = (await requester.network()).head_hash
    return Evidence(
        asked=asked,
        views={view.id: view for view in views},
        receipts=dict(zip(recorded, receipts, strict=True)),
        chain=await _chain(requester, head_hash),
        head_hash=head_hash,
        transfers=tuple(store.transfers()),
        coordinator=secrets.load_or_create(network.coordinator_folder).signer.address,
    )


class Store:
    """Reads what the coordinator has made durable, while it runs. Use it as a context manager."""

    def __init__(self, network: Network) -> None:
        self._backend = backend_of(network.store_url)
        self._reading = Reading(self._backend, self._backend.connect_reader())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reading.connection.close()
        self._backend.close()

    def attempts(self) -> list[AttemptRow]:
        return self._reading.rows(AttemptRow, "SELECT {columns} FROM attempts ORDER BY dispatched_at, attempt_id")

    def is_anchored(self) -> bool:
        """Whether confirmed batches hold every record."""
        records = self._reading.rows(RecordRow, "SELECT {columns} FROM records ORDER BY sequence DESC LIMIT 1")
        batches = self._reading.rows(
            BatchRow, "SELECT {columns} FROM batches WHERE confirmed_at > 0 ORDER BY number DESC LIMIT 1"
        )
        return not records or (bool(batches) and batches[0].last >= records[0].sequence)

    def transfers(self) -> list[TransferRow]:
        return self._reading.rows(TransferRow, "SELECT {columns} FROM transfers ORDER BY at, transfer_id")


def logged(network: Network) -> list[dict[str, Any]]:
    """The coordinator's log so far."""
    lines = network.coordinator_log.read_text(errors="replace").splitlines()
    return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]


def steps(network: Network, transfers: Iterable[TransferRow]) -> dict[str, dict[int, float]]:
    """By request and step: when it happened, in Unix milliseconds; what happened twice counts from the last time.

    The coordinator logs twelve. Step 8, the proof, is in the node's log, which tells how long the return took from
    there. Step 14 is the charge in the ledger.
    """
    settled_at = {each.request_id: each.at for each in transfers if each.transfer_id.startswith("charge:")}
    found: dict[str, dict[int, float]] = {}
    for line in logged(network):
        if line["event"] == EVENT:
            found.setdefault(line["request_id"], {})[line["n"]] = line["at_ms"]
    proven_at = _proven_at(network)
    for request_id, at in found.items():
        at.update({8: proven_at[request_id[-8:]]} if request_id[-8:] in proven_at else {})
        at.update({14: settled_at[request_id]} if request_id in settled_at else {})
    return {request_id: dict(sorted(at.items())) for request_id, at in found.items()}


def step_name(number: int) -> str:
    return STEPS[number - 1]


def _proven_at(network: Network) -> dict[str, float]:
    """Unix milliseconds by the last digits of the request's id."""
    found: dict[str, float] = {}
    for seat in network.seats.values():
        log = seat.home / "node.log"
        text = log.read_text() if log.exists() else ""
        for served_at, digits, return_ms in _SERVED.findall(text):
            found[digits] = datetime.fromisoformat(served_at).timestamp() * 1000 - int(return_ms)
    return found


async def _chain(requester: Requester, head_hash: str) -> tuple[bytes, ...]:
    """From the head back to the first record, as anyone may walk it."""
    found: list[bytes] = []
    while head_hash != GENESIS_HASH:
        found.append(await requester.record(head_hash))
        head_hash = decode_record(found[-1]).previous_hash
    return tuple(reversed(found))
