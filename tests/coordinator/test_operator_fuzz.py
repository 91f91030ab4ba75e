"""Thousands of wrong calls of a staked node: each is answered with a code of its own, and the coordinator serves on."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any, cast

import httpx
import msgspec
import pytest
from hand_driven import DIGEST, HandNode, Opened, Scene, scene

from parallelix.protocol import messages
from parallelix.protocol.encoding import to_base64url

CALLS = 600
FRESH_EVERY = 25
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 2**31, 2**53, 2**64, 1.5, -0.0, "", "x", "\u0000", "🙂" * 50, "nan", [], {}, [[[]]], "0x",
    "0x" + "0" * 64, "att_" + "0" * 32, "req_" + "f" * 64, "A" * 300, "1" * 78,
)  # fmt: skip
"""What stands in place of a value."""
ODD_HEADERS = ("", "x", "-1", "9" * 78, "9" * 400, "0x" + "f" * 130, "0", str(2**64), "\u00e9")
PLAIN = (
    b"[]",
    b'[["a"]]',
    b'[["a",-1.0,[["b",-2]]]]',
    b'[["a",1e400]]',
    b'[["\\ud800"]]',
    b"[[" * 5000,
    b'[["x",NaN]]',
)


class Chaos:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def mutated(self, value: Any) -> Any:
        if isinstance(value, dict):
            fields = dict(cast("dict[str, Any]", value))
            for _ in range(self.random.choice([0, 1, 1, 2])):
                name = self.random.choice([*fields, "new"])
                fields[name] = self.mutated(fields.get(name)) if self.random.random() < 0.3 else self.random.choice(ODD)
            return fields
        if isinstance(value, list):
            return [self.mutated(each) for each in cast("list[Any]", value)][: self.random.randrange(3)]
        return self.random.choice(ODD)

    def spoiled(self, body: bytes) -> bytes:
        """Sometimes cut, sometimes with other bytes in it."""
        chance = self.random.random()
        if chance < 0.1:
            return body[: self.random.randrange(len(body) + 1)]
        if chance < 0.2 and body:
            at = self.random.randrange(len(body))
            return body[:at] + os.urandom(3) + body[at + 3 :]
        return body

    def headers(self, given: dict[str, str]) -> Any:
        headers = dict(given)
        if self.random.random() < 0.3:
            headers[self.random.choice(list(headers))] = self.random.choice(ODD_HEADERS)
        return {name.encode(): value.encode("latin-1") for name, value in headers.items()}

    async def call(self, node: HandNode, unit: Opened) -> httpx.Response:
        name = self.random.choice(["attach", "heartbeat", "inbox", "ack", "stream", "result"])
        attempt_id = unit.unit.attempt_id
        if name in ("attach", "heartbeat", "inbox"):
            headers = self.headers(node.headers("inbox" if name == "inbox" else "heartbeat"))
        elif name == "stream":
            connection = str(self.random.choice([0, 1, 2, 2**32 - 1, 2**32]))
            offset = str(self.random.choice([0, 0, 0, 1, 10**15]))
            headers = self.headers(node.headers("stream", attempt_id, connection=connection, offset=offset))
            place = self.random.choice([attempt_id, attempt_id, "x", "att_" + "0" * 32])
            return await node.http.post(f"/operator/stream/{place}", content=self.frame(unit), headers=headers)
        else:
            headers = self.headers(node.headers("ack", attempt_id))
        if name == "inbox":
            slots = self.random.choice(["0", "1", "9999", "-1", ""])
            return await node.http.get(f"/operator/inbox?slots={slots}", headers=headers)
        good = {"heartbeat": self.heartbeat, "attach": self.attach, "ack": self.ack, "result": self.result}[name]
        body = msgspec.to_builtins(good(node, unit))
        body = self.mutated(body) if self.random.random() < 0.5 else body
        return await node.post(name, self.spoiled(msgspec.json.encode(body)), headers)

    def heartbeat(self, node: HandNode, unit: Opened) -> msgspec.Struct:
        return messages.Heartbeat(slots_free=1)

    def attach(self, node: HandNode, unit: Opened) -> msgspec.Struct:
        manifest: dict[str, Any] = msgspec.to_builtins(node.manifest())
        changed: Any = self.mutated(manifest) if self.random.random() < 0.7 else {**manifest, "models": []}
        return node.attach_body(msgspec.json.encode(changed).decode())

    def ack(self, node: HandNode, unit: Opened) -> msgspec.Struct:
        return unit.acknowledgement

    def result(self, node: HandNode, unit: Opened) -> msgspec.Struct:
        usage = self.random.choice([{"prompt_tokens": 1, "completion_tokens": 1}, {"prompt_tokens": 2**53 - 1}])
        content = to_base64url(b'{"finish_reason":"stop","text":"x","version":1}')
        detail = {"content": content, "entries": to_base64url(self.random.choice(PLAIN)), "usage": usage}
        detail |= {"salt": to_base64url(b"1" * 32), "model_digest": DIGEST}
        sealed = unit.sealer("result").seal(self.spoiled(msgspec.json.encode(self.mutated(detail))))
        return node.result(unit, result=to_base64url(sealed)) if self.random.random() < 0.8 else node.result(unit)

    def frame(self, unit: Opened) -> bytes:
        sealed = unit.sealer("delta", self.random.choice([0, 1, 2])).seal(self.random.choice(PLAIN))
        return self.spoiled(len(sealed).to_bytes(4, "big") + sealed)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
async def test_no_call_of_a_node_breaks_the_coordinator(tmp_path: Path, seed: int) -> None:
    chaos = Chaos(seed)
    async with scene(tmp_path) as on:
        node, unit = await fresh(on)
        for index in range(CALLS):
            if index % FRESH_EVERY == FRESH_EVERY - 1:
                node, unit = await fresh(on)
            answer = await chaos.call(node, unit)
            assert answer.status_code < 500, (seed, index, answer.request.url, answer.text)
            assert answer.status_code == 200 or {*answer.json()} == {"error", "message"}
        node, unit = await fresh(on)
        assert (await node.return_(node.result(unit))).json()["accepted"] is True
        assert sum(on.coordinator.engine.ledger.accounts().values()) == 0


async def fresh(on: Scene) -> tuple[HandNode, Opened]:
    """Both nodes attached anew, and work for one of them."""
    await on.clear()
    await on.first.attach()
    await on.second.attach()
    node, unit, _ = await on.offered()
    return node, unit
