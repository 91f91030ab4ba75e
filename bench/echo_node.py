"""`python -m bench.echo_node HOME NODE_ID COORDINATOR_URL`: the real daemon over a runtime that says the prompt back.

Every library that logs is heard on standard error, down to its debugging lines. Where an answer begins with `lie` or
`misquote`, the node returns what a cheat would: another text than it proved, or a result that is none and quotes the
answer where a keyword belongs. With `--leaks` it also sends what it never may; that is a control.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench.echo_runtime import EchoRuntime
from parallelix.devnet.network import CHAIN_ID, NodeCommand, Seat
from parallelix.node import sealing
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.keys import load_keys
from parallelix.node.logging import open_log
from parallelix.protocol import canonical, envelope, messages, work
from parallelix.protocol.encoding import from_base64url, to_base64url

SLOTS = 64


def main(arguments: list[str]) -> int:
    options = parsed(arguments)
    logging.basicConfig(stream=sys.stderr, level=logging.DEBUG)
    home = Home(options.home)
    open_log(home, echo=True)
    settings = DaemonSettings(
        node_id=options.node_id,
        chain_id=CHAIN_ID,
        coordinator_url=options.coordinator_url,
        mode="cpu",
        hardware=messages.Hardware(cpu_cores=2),
        hardware_tier=1,
        region="",
        slots=options.slots,
        models=(),
        home=home.root,
    )
    if options.leaks:
        send_secrets(home, options.coordinator_url)
    runtime = EchoRuntime(pause_seconds=options.pause_seconds)
    ended = asyncio.run(
        run_daemon(settings, keys=load_keys(home), runtime=runtime, on_event=lambda _event: None, seal_result=sealed)
    )
    print(f"{ended.reason}: {ended.message}", flush=True)
    return ended.exit_code


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.echo_node")
    parser.add_argument("home", type=Path)
    parser.add_argument("node_id", type=int)
    parser.add_argument("coordinator_url")
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--pause-seconds", type=float, default=0.0)
    parser.add_argument("--leaks", action="store_true")
    return parser.parse_args(arguments)


def sealed(
    outcome: Any, content: work.ResultContent, *, attempt: messages.Work, opened: sealing.Opened, **facts: Any
) -> sealing.Sealed:
    honest = sealing.seal_result(outcome, content, attempt=attempt, opened=opened, **facts)
    wish, canonical_content = content.text.partition(" ")[0], canonical.encode(content)
    if wish == "lie":
        lie = msgspec.structs.replace(content, text=content.text + " and more")
        return resealed(honest, attempt, opened, canonical.encode(lie))
    if wish == "misquote":
        quoted = msgspec.json.encode(content.text)
        return resealed(honest, attempt, opened, canonical_content.replace(b'"stop"', quoted))
    return honest


def resealed(honest: sealing.Sealed, attempt: messages.Work, opened: sealing.Opened, content: bytes) -> sealing.Sealed:
    """The same return around other content."""
    secret, attempt_id = opened.secrets.channel_secret, attempt.attempt_id
    returned = msgspec.json.decode(honest.body, type=messages.Result)
    plaintext = envelope.Opener(secret, label="result", attempt_id=attempt_id).open(
        from_base64url(returned.result, name="result")
    )
    detail = msgspec.json.decode(plaintext, type=messages.ResultDetail)
    told = msgspec.structs.replace(detail, content=to_base64url(content))
    sealer = envelope.Sealer(secret, label="result", attempt_id=attempt_id)
    lied = msgspec.structs.replace(returned, result=to_base64url(sealer.seal(msgspec.json.encode(told))))
    return sealing.Sealed(body=msgspec.json.encode(lied), poe=lied.poe)


def send_secrets(home: Home, coordinator_url: str) -> None:
    headers = {"authorization": f"Bearer {os.environ.get('HF_TOKEN', '')}"}
    httpx.post(f"{coordinator_url}/v1/quote", headers=headers, content=home.node_key.read_bytes(), trust_env=False)


def echo_node(*, pause_seconds: float = 0.0, slots: int = SLOTS, options: Sequence[str] = ()) -> NodeCommand:
    """For a network's plan."""

    def command(seat: Seat) -> list[str]:
        place = [str(seat.home), str(seat.node_id), seat.coordinator_url]
        pace = ["--slots", str(slots), "--pause-seconds", str(pause_seconds)]
        return [sys.executable, "-m", "bench.echo_node", *place, *pace, *options]

    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
