"""`python -m bench.instant_node HOME NODE_ID COORDINATOR_URL`: the real daemon over a runtime that answers at once.

It is of the highest tier and can do everything, so that no request has to wait for a node.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from bench.instant_runtime import InstantRuntime
from parallelix.devnet.network import CHAIN_ID, NodeCommand, Seat
from parallelix.node.daemon import DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.keys import load_keys
from parallelix.node.logging import open_log
from parallelix.protocol import messages

TIER = 4


def main(arguments: list[str]) -> int:
    home_folder, node_id, coordinator_url = arguments
    home = Home(Path(home_folder))
    open_log(home)
    settings = DaemonSettings(
        node_id=int(node_id),
        chain_id=CHAIN_ID,
        coordinator_url=coordinator_url,
        mode="cpu",
        hardware=messages.Hardware(cpu_cores=2),
        hardware_tier=TIER,
        region="",
        slots=messages.SLOTS_MAX,
        models=(),
        home=home.root,
    )
    ended = asyncio.run(
        run_daemon(settings, keys=load_keys(home), runtime=InstantRuntime(), on_event=lambda _event: None)
    )
    print(f"{ended.reason}: {ended.message}", flush=True)
    return ended.exit_code


def instant_node() -> NodeCommand:
    """For a network's plan."""

    def command(seat: Seat) -> list[str]:
        return [sys.executable, "-m", "bench.instant_node", str(seat.home), str(seat.node_id), seat.coordinator_url]

    return command


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
