"""Nodes that do wrong, for demonstrations and tests: the real daemon and a real model, with one fault around them.

    tampered    changes the answer's text after the proof was made
    malformed   sends a proof that is none
    silent      takes work, streams, and never returns a result; its heart beats on
    slow        waits before each token
    substituted runs the sibling model under the name and the digest of the one that was asked for, and proves it well

A silent node does not stop on SIGTERM, which lets it finish first: kill it.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import msgspec
import typer

from parallelix.devnet.network import CHAIN_ID, NodeCommand, Seat
from parallelix.node import sealing
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.keys import load_keys
from parallelix.node.logging import open_log
from parallelix.node.runtimes.base import Finished, Generation, Model, Probed, TokenEntry
from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.protocol import canonical, envelope, messages, work
from parallelix.protocol.encoding import from_base64url, to_base64url

SILENT_SECONDS = 3600.0
"""Longer than any deadline that a request may ask for."""
SLOW_SECONDS = 0.5
SIBLING = "parallelix-demo-b.gguf"
"""Beside the demonstration model: the same vocabulary, other weights."""


class Fault(StrEnum):
    TAMPERED = "tampered"
    MALFORMED = "malformed"
    SILENT = "silent"
    SLOW = "slow"
    SUBSTITUTED = "substituted"


def faulty_node(fault: Fault, gguf: Path, *, slots: int = 2) -> NodeCommand:
    """For a network's plan, or for one of its nodes."""

    def command(seat: Seat) -> list[str]:
        place = [str(seat.home), str(seat.node_id), seat.coordinator_url]
        return [sys.executable, "-m", "parallelix.devnet.faults", fault.value, *place, str(gguf), str(slots)]

    return command


def tampered(
    outcome: Any, content: work.ResultContent, *, attempt: messages.Work, opened: sealing.Opened, **facts: Any
) -> sealing.Sealed:
    """An honest proof around another text. What it audits is left as it is: that has no text."""
    honest = sealing.seal_result(outcome, content, attempt=attempt, opened=opened, **facts)
    if opened.payload.probes is not None:
        return honest
    returned = msgspec.json.decode(honest.body, type=messages.Result)
    secret, attempt_id = opened.secrets.channel_secret, attempt.attempt_id
    sealed = from_base64url(returned.result, name="result")
    plaintext = envelope.Opener(secret, label="result", attempt_id=attempt_id).open(sealed)
    detail = msgspec.json.decode(plaintext, type=messages.ResultDetail)
    lie = msgspec.structs.replace(content, text=content.text + " And that is all.")
    told = msgspec.structs.replace(detail, content=to_base64url(canonical.encode(lie)))
    sealer = envelope.Sealer(secret, label="result", attempt_id=attempt_id)
    return _with(honest, result=to_base64url(sealer.seal(msgspec.json.encode(told))))


def malformed(*given: Any, **facts: Any) -> sealing.Sealed:
    return _with(sealing.seal_result(*given, **facts), poe="0x00")


def silent(*given: Any, **facts: Any) -> sealing.Sealed:
    time.sleep(SILENT_SECONDS)
    return sealing.seal_result(*given, **facts)


SEALING: dict[Fault, Callable[..., sealing.Sealed]] = {
    Fault.TAMPERED: tampered,
    Fault.MALFORMED: malformed,
    Fault.SILENT: silent,
    Fault.SLOW: sealing.seal_result,
    Fault.SUBSTITUTED: sealing.seal_result,
}


class SlowLlamaCpp(LlamaCpp):
    async def generate(self, work: Generation) -> AsyncGenerator[TokenEntry | Finished]:
        async for item in super().generate(work):
            await asyncio.sleep(SLOW_SECONDS)
            yield item


class SubstitutedLlamaCpp(LlamaCpp):
    """Says that it serves `claimed`, and runs `actual`: for its own work and for what it audits."""

    def __init__(self, claimed: Path, actual: Path, *, slots: int) -> None:
        super().__init__([actual], slots)
        self._says = LlamaCpp([claimed], slots=1)

    async def models(self) -> list[Model]:
        [claimed], [actual] = await self._says.models(), await super().models()
        return [replace(actual, name=claimed.name, digest=claimed.digest)]

    async def generate(self, work: Generation) -> AsyncGenerator[TokenEntry | Finished]:
        async for item in super().generate(await self._swapped(work)):
            yield item

    async def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[Probed]:
        async for item in super().probe(await self._swapped(work), text, positions):
            yield item

    async def _swapped(self, work: Generation) -> Generation:
        [actual] = await super().models()
        return replace(work, model=actual.digest)


def _runtime(fault: Fault, gguf: Path, *, slots: int) -> LlamaCpp:
    if fault is Fault.SUBSTITUTED:
        return SubstitutedLlamaCpp(gguf, gguf.with_name(SIBLING), slots=slots)
    return (SlowLlamaCpp if fault is Fault.SLOW else LlamaCpp)([gguf], slots=slots)


def main(fault: Fault, home: Path, node_id: int, coordinator_url: str, gguf: Path, slots: int) -> None:
    open_log(Home(home))
    asyncio.run(_run(fault, Home(home), node_id, coordinator_url, gguf, slots))
    sys.stdout.flush()
    # Without waiting for the threads of a silent node.
    os._exit(0)


async def _run(fault: Fault, home: Home, node_id: int, coordinator_url: str, gguf: Path, slots: int) -> None:
    runtime = _runtime(fault, gguf, slots=slots)
    settings = DaemonSettings(
        node_id=node_id,
        chain_id=CHAIN_ID,
        coordinator_url=coordinator_url,
        mode="cpu",
        hardware=messages.Hardware(cpu_cores=os.cpu_count() or 1),
        hardware_tier=1,
        region="",
        slots=slots,
        models=(),
        home=home.root,
    )
    try:
        ended = await run_daemon(
            settings, keys=load_keys(home), runtime=runtime, on_event=print, seal_result=SEALING[fault]
        )
        sys.stdout.write(f"{ended.message}\n")
    finally:
        await runtime.aclose()


def _with(sealed: sealing.Sealed, **changes: str) -> sealing.Sealed:
    returned = msgspec.structs.replace(msgspec.json.decode(sealed.body, type=messages.Result), **changes)
    return sealing.Sealed(body=msgspec.json.encode(returned), poe=returned.poe)


if __name__ == "__main__":
    typer.run(main)
