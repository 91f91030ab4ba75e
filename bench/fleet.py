"""Many nodes in one process: each has its own node key, attaches for real, keeps a long poll open and sends signed
heartbeats over real HTTP. What they share is one pair of RSA keys, which nothing here uses but to announce it.

A poll is a connection of its own, as it is for a real node. Heartbeats share a few hundred connections, so that ten
thousand nodes fit into the files that one process may open.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import msgspec

from bench.instant_runtime import DIGEST, MODEL
from parallelix.devnet.network import CHAIN_ID
from parallelix.protocol import messages, signing
from parallelix.protocol.encoding import from_hex, to_hex
from parallelix.protocol.errors import ProtocolError
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration

FIRST_NODE_ID = 100_001
WIRES = 64
"""Heartbeats in flight. The coordinator takes one at a time; more would only wait."""
ATTACHES = 32
CALL_SECONDS = 60.0
CHECKED_EVERY = 50
"""Of that many receipts one has its signature checked; all are read."""
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"


class FleetError(Exception):
    """A simulated node was refused, or lost its connection."""


class Wire(asyncio.Protocol):
    """One connection that stays open, with one call at a time. Answers must state their length, as ours do."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._waiting: asyncio.Future[tuple[int, bytes]] | None = None
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are none of asyncio's by descent.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head_end = self._buffer.find(_HEAD_END)
        if head_end < 0:
            return
        head = bytes(self._buffer[:head_end]).lower()
        at = head.find(_LENGTH) + len(_LENGTH)
        end = head_end + len(_HEAD_END) + int(head[at:].split(b"\r\n", 1)[0])
        if len(self._buffer) < end:
            return
        answer = int(head[9:12]), bytes(self._buffer[head_end + len(_HEAD_END) : end])
        del self._buffer[:end]
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(answer)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_exception(FleetError(f"the connection was lost: {exc}"))

    async def call(self, request: bytes) -> tuple[int, bytes]:
        """Status and body of the answer. Raises `FleetError`."""
        if self._transport is None:
            raise FleetError("the connection is closed")
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        return await self._waiting

    def close(self) -> None:
        if self._transport is not None:
            self._transport.abort()


@dataclass(slots=True)
class SimulatedNode:
    node_id: int
    key: signing.NodeKey
    session: str = ""
    stamps: dict[str, int] = field(default_factory=dict[str, int])

    def registration(self) -> Registration:
        return Registration(
            node_id=str(self.node_id),
            owner=f"0x{self.node_id:040x}",
            stake_wei=str(MINIMUM_STAKE_WEI),
            hardware_tier=1,
            node_key_hash=to_hex(self.key.key_hash),
            state="active",
        )

    def attach(self, manifest: bytes) -> bytes:
        digest = hashlib.sha256(manifest).digest()
        self.session = digest.hex()[:32]
        text = signing.attach_text(CHAIN_ID, self.node_id, to_hex(digest))
        body = messages.Attach(
            manifest=manifest.decode(), public_key=to_hex(self.key.public_key), signature=to_hex(self.key.sign(text))
        )
        return _request("POST", "/api/operator/attach", {}, msgspec.json.encode(body))

    def poll(self) -> bytes:
        path = f"/api/operator/inbox?nodeId={self.node_id}&slots=2"
        return _request("GET", path, self._signed("inbox"), b"")

    def heartbeat(self, signer: signing.NodeKey | None = None) -> bytes:
        body = msgspec.json.encode(messages.Heartbeat(slots_free=2))
        return _request("POST", "/api/operator/heartbeat", self._signed("heartbeat", signer), body)

    def _signed(self, purpose: signing.TimedPurpose, signer: signing.NodeKey | None = None) -> dict[str, str]:
        stamp = max(time.time_ns() // 1_000_000, self.stamps.get(purpose, 0) + 1)
        self.stamps[purpose] = stamp
        text = signing.timed_text(purpose, CHAIN_ID, self.node_id, self.session, stamp)
        return {
            messages.HEADER_NODE: str(self.node_id),
            messages.HEADER_SESSION: self.session,
            messages.HEADER_TIME: str(stamp),
            messages.HEADER_SIGNATURE: to_hex((signer or self.key).sign(text)),
        }


class Fleet:
    """`count` nodes. `attach` comes first."""

    def __init__(self, count: int, *, envelope_key: str, poe_key: str) -> None:
        """The keys are what all nodes announce, as PEM."""
        self.nodes = [SimulatedNode(FIRST_NODE_ID + index, signing.NodeKey.generate()) for index in range(count)]
        self.polls_answered = 0
        self._port = 0
        self._wires: list[Wire] = []
        self._polls: list[asyncio.Task[None]] = []
        self._poll_wires: list[Wire] = []
        self._coordinator = ""
        self._keys = (envelope_key, poe_key)

    async def attach(self, port: int) -> None:
        """Attaches every node to the coordinator on `port`. Raises `FleetError` for the first that is refused."""
        self._port = port
        self._wires = [await self._connect() for _ in range(WIRES)]
        await self._each(self.nodes, self._attach, self._wires[:ATTACHES])

    async def beat(self, rounds: int = 1) -> int:
        """Every node sends `rounds` heartbeats. How many were answered with a genuine receipt."""
        sent, counted = 0, 0

        async def one(node: SimulatedNode, wire: Wire) -> None:
            nonlocal sent, counted
            sent += 1
            checked = sent % CHECKED_EVERY == 1
            answer = await wire.call(node.heartbeat())
            counted += self._is_receipt(node, answer, checked=checked)

        for _ in range(rounds):
            await self._each(self.nodes, one, self._wires)
        return counted

    async def beat_with_a_strange_key(self) -> int:
        """As `beat`, by one node that signs with a key that is not its own."""
        node = self.nodes[0]
        answer = await self._wires[0].call(node.heartbeat(signing.NodeKey.generate()))
        return int(self._is_receipt(node, answer, checked=True))

    async def open_polls(self) -> None:
        """Every node opens its long poll and keeps it open; returns when all are."""
        self._poll_wires = list[Wire]()
        limit = asyncio.Semaphore(ATTACHES)

        async def open_one() -> None:
            async with limit:
                self._poll_wires.append(await self._connect())

        await asyncio.gather(*(open_one() for _ in self.nodes))
        pairs = zip(self.nodes, self._poll_wires, strict=True)
        self._polls = [asyncio.create_task(self._keep_polling(node, wire)) for node, wire in pairs]
        # All are written once the loop has turned; the heartbeat that follows is answered after they were read.
        await asyncio.sleep(0.5)
        await self.beat()

    @property
    def polls_open(self) -> int:
        """Polls that were neither refused nor cut."""
        return sum(not task.done() for task in self._polls)

    async def close(self) -> None:
        for task in self._polls:
            task.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)
        for wire in (*self._wires, *self._poll_wires):
            wire.close()

    async def _connect(self) -> Wire:
        _, wire = await asyncio.get_running_loop().create_connection(Wire, "127.0.0.1", self._port)
        return wire

    async def _attach(self, node: SimulatedNode, wire: Wire) -> None:
        status, body = await wire.call(node.attach(self._manifest(node)))
        if status != 200:
            raise FleetError(f"node {node.node_id} was not attached: {body.decode(errors='replace')}")
        self._coordinator = msgspec.json.decode(body, type=messages.Attached).coordinator

    async def _keep_polling(self, node: SimulatedNode, wire: Wire) -> None:
        while True:
            status, body = await wire.call(node.poll())
            if status != 200:
                raise FleetError(f"node {node.node_id} may not poll: {body.decode(errors='replace')}")
            self.polls_answered += 1

    async def _each(
        self,
        nodes: Iterable[SimulatedNode],
        act: Callable[[SimulatedNode, Wire], Awaitable[None]],
        wires: Sequence[Wire],
    ) -> None:
        left = iter(nodes)

        async def work(wire: Wire) -> None:
            for node in left:
                await act(node, wire)

        works: list[Coroutine[Any, Any, None]] = [work(wire) for wire in wires]
        async with asyncio.timeout(CALL_SECONDS + len(self.nodes) / 100):
            await asyncio.gather(*works)

    def _is_receipt(self, node: SimulatedNode, answer: tuple[int, bytes], *, checked: bool) -> bool:
        status, body = answer
        if status != 200:
            return False
        receipt = msgspec.json.decode(body, type=messages.UptimeReceipt)
        return receipt.node_id == str(node.node_id) and (not checked or self._is_genuine(receipt))

    def _is_genuine(self, receipt: messages.UptimeReceipt) -> bool:
        text = signing.receipt_text(CHAIN_ID, int(receipt.node_id), receipt.session, receipt.unix_ms)
        try:
            signature = from_hex(receipt.signature, name="signature", length_bytes=signing.SIGNATURE_BYTES)
            signer = signing.public_key_hash(signing.recover_public_key(text, signature))[12:]
        except ProtocolError:
            return False
        return signing.checksum_address(signer).lower() == self._coordinator.lower()

    def _manifest(self, node: SimulatedNode) -> bytes:
        manifest = messages.Manifest(
            node_id=str(node.node_id),
            chain_id=CHAIN_ID,
            mode="cpu",
            hardware_tier=1,
            hardware=messages.Hardware(cpu_cores=8, cpu_model="simulated", memory_mib=16_384),
            workload_classes=("ai.inference",),
            runtimes=(messages.RuntimeInfo(name="instant", version="1"),),
            models=(
                messages.ModelInfo(
                    name=MODEL, digest=DIGEST, context_tokens=8192, features=("chat", "logprobs", "embeddings")
                ),
            ),
            slots=2,
            envelope_key=self._keys[0],
            poe_key=self._keys[1],
            client_version="0.1.0",
            issued_at=time.time_ns() // 1_000_000,
            run_id=f"{node.node_id:032x}",
        )
        return msgspec.json.encode(manifest)


def _request(method: str, path: str, headers: dict[str, str], body: bytes) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join((*lines, f"content-length: {len(body)}", "", "")).encode() + body
