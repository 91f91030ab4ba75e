"""A real coordinator, and nodes that a test drives by hand: every call with real keys, seals and signatures."""

from __future__ import annotations

import hashlib
import itertools
import os
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import httpx
import msgspec
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from joserfc.jwk import RSAKey

from coordinator_state import everything
from parallelix.coordinator import app, commands, spec
from parallelix.coordinator.operator import OperatorApp
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.engine import events
from parallelix.engine.entities import ApiKey
from parallelix.protocol import canonical, envelope, messages, poe, signing, work
from parallelix.protocol.encoding import from_base64url, to_base64url, to_hex
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration
from parallelix.protocol.requests import ChatMessage, CreateRequest
from parallelix.protocol.signing import TimedPurpose

MODEL = "by-hand"
DIGEST = hashlib.sha256(MODEL.encode()).hexdigest()
CHAIN_ID = 31337
COOLING, UNSTAKED = 7, 8
"""Ids of nodes that are registered but cooling, and not registered."""
CATALOGUE = f"""
[[models]]
name = "{MODEL}"
digests = ["{DIGEST}"]
prompt_wei_per_1000 = "1000000"
completion_wei_per_1000 = "2000000"
context_tokens = 8192
max_tokens_default = 64
"""
CONTENT = work.ResultContent(text="so be it", finish_reason="stop")
ENTRIES = work.encode_entries((work.Entry("so be", -0.5), work.Entry(" it", -0.25)))
USAGE = work.Usage(prompt_tokens=4, completion_tokens=2)


@cache
def rsa_key(name: str, bits: int = envelope.RSA_KEY_BITS) -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=envelope.RSA_EXPONENT, key_size=bits)


def public_pem(key: rsa.RSAPrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@dataclass(frozen=True, kw_only=True)
class Opened:
    """What a node finds in an envelope."""

    unit: messages.Work
    secrets: envelope.Secrets
    payload: bytes

    def sealer(self, label: envelope.ChannelLabel, connection: int = 0) -> envelope.Sealer:
        secret = self.secrets.channel_secret
        return envelope.Sealer(secret, label=label, attempt_id=self.unit.attempt_id, connection=connection)

    @property
    def acknowledgement(self) -> messages.Acknowledge:
        sealed = self.sealer("acknowledgement").seal(messages.ACKNOWLEDGEMENT)
        return messages.Acknowledge(attempt_id=self.unit.attempt_id, sealed=to_base64url(sealed))


@dataclass(kw_only=True)
class HandNode:
    """Signs what its test asks for. `session` is that of its last attach."""

    http: httpx.AsyncClient
    node_id: int
    key: signing.NodeKey = field(default_factory=signing.NodeKey.generate)
    session: str = ""
    last_ms: int = 0
    owner: str = "0x" + "22" * 20
    features: tuple[str, ...] = ("chat",)

    @property
    def registration(self) -> Registration:
        return Registration(
            node_id=str(self.node_id), owner=self.owner, stake_wei=str(MINIMUM_STAKE_WEI), hardware_tier=2,
            node_key_hash=to_hex(self.key.key_hash), state="active",
        )  # fmt: skip

    def manifest(self, **changes: Any) -> messages.Manifest:
        manifest = messages.Manifest(
            node_id=str(self.node_id), chain_id=CHAIN_ID, mode="gpu", hardware_tier=2,
            hardware=messages.Hardware(cpu_cores=2), workload_classes=("ai.inference",), runtimes=(), slots=64,
            models=(messages.ModelInfo(name=MODEL, digest=DIGEST, context_tokens=8192, features=self.features),),
            envelope_key=public_pem(rsa_key("envelope")), poe_key=public_pem(rsa_key("poe")),
            client_version="test", issued_at=self.now(), run_id="one",
        )  # fmt: skip
        return msgspec.structs.replace(manifest, **changes)

    def attach_body(self, manifest: messages.Manifest | str, *, key: signing.NodeKey | None = None) -> messages.Attach:
        text = manifest if isinstance(manifest, str) else msgspec.json.encode(manifest).decode()
        digest = to_hex(hashlib.sha256(text.encode()).digest())
        signature = (key or self.key).sign(signing.attach_text(CHAIN_ID, self.node_id, digest))
        return messages.Attach(manifest=text, public_key=to_hex(self.key.public_key), signature=to_hex(signature))

    async def attach(self) -> None:
        answer = await self.post("attach", self.attach_body(self.manifest()))
        assert answer.status_code == 200, answer.text
        self.session = answer.json()["session"]

    def now(self) -> int:
        """Goes up with every call."""
        self.last_ms = max(self.last_ms + 1, time.time_ns() // 1_000_000)
        return self.last_ms

    def sign(self, purpose: TimedPurpose, unix_ms: int, attempt_id: str | None = None) -> bytes:
        return self.key.sign(signing.timed_text(purpose, CHAIN_ID, self.node_id, self.session, unix_ms, attempt_id))

    def headers(self, purpose: TimedPurpose, attempt_id: str | None = None, **changes: str) -> dict[str, str]:
        unix_ms = int(changes["time"]) if changes.get("time", "").isdigit() else self.now()
        return {
            messages.HEADER_NODE: str(self.node_id),
            messages.HEADER_SESSION: self.session,
            messages.HEADER_TIME: str(unix_ms),
            messages.HEADER_SIGNATURE: to_hex(self.sign(purpose, unix_ms, attempt_id)),
            **{f"x-parallelix-{name}": value for name, value in changes.items()},
        }

    async def post(self, name: str, body: msgspec.Struct | bytes, headers: dict[str, str] | None = None) -> Any:
        content = body if isinstance(body, bytes) else msgspec.json.encode(body)
        return await self.http.post(f"/operator/{name}", content=content, headers=headers)

    async def take(self) -> Opened:
        """The next unit of work of its inbox, opened."""
        headers = self.headers("inbox")
        answer = await self.http.get(f"/operator/inbox?nodeId={self.node_id}&slots=1", headers=headers)
        assert answer.status_code == 200, answer.text
        (unit,) = msgspec.json.decode(answer.content, type=messages.Inbox).work
        header, secrets = envelope.open_envelope(unit.envelope, private_key=RSAKey.import_key(rsa_key("envelope")))
        sealed = from_base64url(unit.payload, name="payload")
        envelope.require_header(
            header, attempt_id=unit.attempt_id, unit_id=unit.unit_id, node_id=self.node_id, sealed_payload=sealed
        )
        payload = envelope.open_payload(sealed, unit_id=unit.unit_id, content_key=secrets.content_key)
        return Opened(unit=unit, secrets=secrets, payload=payload)

    async def acknowledge(self, work: Opened) -> httpx.Response:
        return await self.post("ack", work.acknowledgement, self.headers("ack", work.unit.attempt_id))

    async def stream(
        self, work: Opened, *frames: bytes, connection: int = 0, offset: int = 0, **changes: str
    ) -> httpx.Response:
        async def body() -> AsyncIterator[bytes]:
            for frame in frames:
                yield frame

        numbers = {"connection": str(connection), "offset": str(offset)}
        headers = self.headers("stream", work.unit.attempt_id, **numbers, **changes)
        return await self.http.post(f"/operator/stream/{work.unit.attempt_id}", content=body(), headers=headers)

    def result(
        self, work_: Opened, *, content: work.ResultContent = CONTENT, entries: bytes = ENTRIES,
        usage: work.Usage = USAGE, **changes: Any,
    ) -> messages.Result:  # fmt: skip
        """A result that is right in everything that `changes` leaves alone."""
        unit, result, salt = work_.unit, canonical.encode(content), os.urandom(poe.SALT_BYTES)
        proof = poe.proof_of_execution(unit.unit_id, result, self.node_id)
        facts = poe.AttemptFacts(
            chain_id=CHAIN_ID, attempt_id=unit.attempt_id, attempt_number=unit.attempt_number, outcome="completed",
            input_hash=to_hex(work.input_hash(work_.secrets.request_salt, work_.payload)), model_digest=DIGEST,
            usage=usage, entries_root=to_hex(work.entries_root(entries)), salt_hash=to_hex(poe.salt_hash(salt)),
        )  # fmt: skip
        detail = messages.ResultDetail(
            content=to_base64url(result), entries=to_base64url(entries), salt=to_base64url(salt), usage=usage,
            model_digest=DIGEST,
        )  # fmt: skip
        returned = messages.Result(
            attempt_id=unit.attempt_id,
            outcome="completed",
            result=to_base64url(work_.sealer("result").seal(msgspec.json.encode(detail))),
            poe=to_hex(proof),
            signature=to_hex(self.key.sign(signing.result_text(unit.unit_id))),
            poe_signature=to_base64url(poe.sign(rsa_key("poe"), result, proof, facts)),
        )
        return msgspec.structs.replace(returned, **changes)

    async def return_(self, result: messages.Result) -> httpx.Response:
        return await self.post("result", result, self.headers("ack", result.attempt_id))


@dataclass(kw_only=True)
class Scene:
    """A coordinator with two nodes and an account with credits."""

    coordinator: Coordinator
    first: HandNode
    second: HandNode
    key: ApiKey
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    async def create(self, **options: Any) -> str:
        message = ChatMessage(role="user", content=f"say so, {next(self._numbers)} times")
        body = CreateRequest(model=MODEL, messages=(message,), **options)
        created = await self.coordinator.create(self.key, spec.from_create(body), attached=False)
        return created.request_id

    async def offered(self) -> tuple[HandNode, Opened, HandNode]:
        """A new request's work, the node that has it, and the other node."""
        request_id = await self.create()
        await self.coordinator.journal.flushed()
        attempt = self.coordinator.engine.requests[request_id].attempts[-1]
        mine, other = self.first, self.second
        if attempt.node_id == other.node_id:
            mine, other = other, mine
        return mine, await mine.take(), other

    async def clear(self) -> None:
        """Ends what a test left open."""
        for request_id in list(self.coordinator.engine.requests):
            await self.coordinator.abandon(request_id, "test")

    async def everything(self) -> dict[str, Any]:
        return await everything(self.coordinator)


@asynccontextmanager
async def scene(folder: Path, *, catalogue: str = CATALOGUE, **settings: Any) -> AsyncGenerator[Scene]:
    http = httpx.AsyncClient(base_url="http://coordinator")
    first, second = HandNode(http=http, node_id=1001), HandNode(http=http, node_id=1002)
    cooling = msgspec.structs.replace(
        HandNode(http=http, node_id=COOLING).registration, state="cooling", cooldown_ends_at=2**40
    )
    registry = [first.registration, second.registration, cooling]
    (folder / "registry.json").write_bytes(msgspec.json.encode(registry))
    (folder / "catalogue.toml").write_text(catalogue)
    quiet = {
        "batch_seconds": 86_400, "offline_seconds": 3600, "acknowledge_seconds": 600, "poll_seconds": 0.1,
        "audits": False,
    }  # fmt: skip
    chosen = msgspec.convert({"data_folder": str(folder), **quiet, **settings}, CoordinatorSettings)
    unexpected: list[Any] = []

    def log(name: str, fields: dict[str, Any]) -> None:
        if name == "http.unexpected":
            unexpected.append(fields)

    async with app.running(chosen, log=log, on_fatal=_fatal) as coordinator:
        transport = httpx.ASGITransport(OperatorApp(coordinator))
        async with httpx.AsyncClient(transport=transport, base_url="http://coordinator", timeout=30) as client:
            first.http = second.http = client
            await first.attach()
            await second.attach()
            key = await _rich_key(coordinator)
            yield Scene(coordinator=coordinator, first=first, second=second, key=key)
    await http.aclose()
    assert not unexpected, unexpected


async def _rich_key(coordinator: Coordinator) -> ApiKey:
    made = commands.new_key()
    await coordinator.settle(events.Grant(grant_id="one", account="acme", amount_wei=10**24))
    await coordinator.issue_key(
        events.KeyIssued(key_id=made.key_id, key_hash=made.key_hash, account="acme", name="test")
    )
    return coordinator.authenticate(made.secret)


def _fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error
