"""`python -m bench.echo_node HOME NODE_ID COORDINATOR_URL`: the real daemon over a runtime that says the prompt back.

Every library that logs is heard on standard error, down to its debugging lines.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from bench.echo_runtime import EchoRuntime
from parallelix.devnet.network import CHAIN_ID, NodeCommand, Seat
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.keys import load_keys
from parallelix.node.logging import open_log
from parallelix.protocol import messages

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
    runtime = EchoRuntime(pause_seconds=options.pause_seconds)
    ended = asyncio.run(run_daemon(settings, keys=load_keys(home), runtime=runtime, on_event=lambda _event: None))
    print(f"{ended.reason}: {ended.message}", flush=True)
    return ended.exit_code


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench.echo_node")
    parser.add_argument("home", type=Path)
    parser.add_argument("node_id", type=int)
    parser.add_argument("coordinator_url")
    parser.add_argument("--slots", type=int, default=SLOTS)
    parser.add_argument("--pause-seconds", type=float, default=0.0)
    return parser.parse_args(arguments)


def echo_node(*, pause_seconds: float = 0.0, slots: int = SLOTS) -> NodeCommand:
    """For a network's plan."""

    def command(seat: Seat) -> list[str]:
        place = [str(seat.home), str(seat.node_id), seat.coordinator_url]
        options = ["--slots", str(slots), "--pause-seconds", str(pause_seconds)]
        return [sys.executable, "-m", "bench.echo_node", *place, *options]

    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
