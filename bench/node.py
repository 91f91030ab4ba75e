"""`python -m bench.node HOME NODE_ID COORDINATOR_URL SAMPLES`: the real daemon over a runtime that answers at once.

A stopwatch is at its runtime and at its two RSA operations; `SAMPLES` is the file that it writes to.

A prompt of the form `{"before_ms": 400, "between_ms": 0}` makes the runtime take its time, for measurements in which
many requests are to be open at once without one waiting for another.

`--tamper` spoils every proof it signs: no such answer may ever count.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any, cast

import msgspec
import uvloop
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from joserfc.jwk import RSAKey

from bench.instant_runtime import InstantRuntime
from bench.stopwatch import SampleWriter
from parallelix.devnet.network import CHAIN_ID, NodeCommand, Seat
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.keys import NodeKeys, load_keys
from parallelix.node.logging import open_log
from parallelix.node.runtimes.base import Finished, Generation, TokenEntry
from parallelix.protocol import messages

SLOTS = messages.SLOTS_MAX


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """What a prompt may ask of the runtime."""

    before_ms: float = 0.0
    between_ms: float = 0.0


def prompt(pace: Pace) -> str:
    return msgspec.json.encode(pace).decode()


def _pace_of(work: Generation) -> Pace:
    try:
        return msgspec.json.decode(str((work.messages or [{}])[-1].get("content", "")), type=Pace)
    except msgspec.DecodeError:
        return Pace()


class TimedRuntime(InstantRuntime):
    """At once, or as slowly as the prompt asks."""

    def __init__(self, samples: SampleWriter) -> None:
        super().__init__()
        self._samples = samples

    async def generate(self, work: Generation) -> AsyncGenerator[TokenEntry | Finished]:
        started, pace, first = time.perf_counter(), _pace_of(work), True
        if pace.before_ms:
            await asyncio.sleep(pace.before_ms / 1000)
        async for item in super().generate(work):
            if first:
                self._samples.add("first", time.perf_counter() - started)
            elif pace.between_ms and isinstance(item, TokenEntry):
                await asyncio.sleep(pace.between_ms / 1000)
            first = False
            if isinstance(item, Finished):
                self._samples.add("runtime", time.perf_counter() - started)
            yield item


class TimedPrivateKey:
    """Stands before an RSA key; what it does not time itself it hands on."""

    def __init__(self, key: RSAPrivateKey, samples: SampleWriter, spoil: Callable[[bytes], bytes]) -> None:
        self._key = key
        self._samples = samples
        self._spoil = spoil

    def __getattr__(self, name: str) -> Any:
        return getattr(self._key, name)

    def decrypt(self, *arguments: Any) -> bytes:
        started = time.perf_counter()
        plaintext = self._key.decrypt(*arguments)
        self._samples.add("decrypt", time.perf_counter() - started)
        return plaintext

    def sign(self, *arguments: Any) -> bytes:
        started = time.perf_counter()
        signature = self._key.sign(*arguments)
        self._samples.add("sign", time.perf_counter() - started)
        return self._spoil(signature)


class TimedRSAKey(RSAKey):
    """Decrypts by its stopwatch, which is all that a node does with it."""

    timed: TimedPrivateKey

    def get_op_key(self, operation: Any) -> Any:
        assert operation == "decrypt", operation
        return self.timed


def timed_keys(home: Home, samples: SampleWriter, spoil: Callable[[bytes], bytes]) -> NodeKeys:
    keys = load_keys(home)
    opening = TimedRSAKey.import_key(keys.envelope.as_pem(private=True))
    opening.timed = TimedPrivateKey(cast(RSAPrivateKey, opening.raw_value), samples, spoil)
    signing = cast(RSAPrivateKey, TimedPrivateKey(keys.poe, samples, spoil))
    return NodeKeys(node=keys.node, envelope=opening, poe=signing)


def main(arguments: list[str]) -> int:
    options = _parsed(arguments)
    home = Home(options.home)
    open_log(home)
    samples = SampleWriter(options.samples)
    settings = DaemonSettings(
        node_id=options.node_id,
        chain_id=CHAIN_ID,
        coordinator_url=options.coordinator_url,
        mode="cpu",
        hardware=messages.Hardware(cpu_cores=2),
        hardware_tier=1,
        region="",
        slots=SLOTS,
        models=(),
        home=home.root,
    )
    keys = timed_keys(home, samples, _tampered if options.tamper else _as_it_is)
    ended = uvloop.run(
        run_daemon(settings, keys=keys, runtime=TimedRuntime(samples), on_event=lambda _event: None),
    )
    print(f"{ended.reason}: {ended.message}", flush=True)
    return ended.exit_code


def bench_node(samples: Callable[[int], Path], *, tamper: bool = False) -> NodeCommand:
    """For a network's plan. `samples` names the file of each node, by its number."""

    def command(seat: Seat) -> list[str]:
        place = [str(seat.home), str(seat.node_id), seat.coordinator_url, str(samples(seat.number))]
        return [sys.executable, "-m", "bench.node", *place, *(["--tamper"] if tamper else [])]

    return command


def _as_it_is(signature: bytes) -> bytes:
    return signature


def _tampered(signature: bytes) -> bytes:
    return signature[:-1] + bytes([signature[-1] ^ 1])


def _parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.node")
    parser.add_argument("home", type=Path)
    parser.add_argument("node_id", type=int)
    parser.add_argument("coordinator_url")
    parser.add_argument("samples", type=Path)
    parser.add_argument("--tamper", action="store_true")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
