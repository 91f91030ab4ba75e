"""A daemon in a process of its own: `python node_program.py <home> <coordinator url>`.

Its runtime says a hundred words, slowly. It prints each event on a line, and ends with the daemon's exit code.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from scripted_coordinator import CHAIN_ID
from scripted_runtime import Script, ScriptedRuntime, words

from parallelix.node import keys
from parallelix.node.daemon import DaemonEvent, DaemonSettings, run_daemon
from parallelix.node.home import Home
from parallelix.node.logging import open_log
from parallelix.protocol import messages

TEXT = " ".join(f"word{number}" for number in range(100))


def main(home: Path, coordinator_url: str) -> int:
    runtime = ScriptedRuntime()
    runtime.scripts = [Script(entries=words(TEXT), pause_seconds=0.02) for _ in range(10)]
    settings = DaemonSettings(
        node_id=4217,
        chain_id=CHAIN_ID,
        coordinator_url=coordinator_url,
        mode="cpu",
        hardware=messages.Hardware(cpu_cores=2),
        hardware_tier=1,
        region="",
        slots=2,
        models=(),
        home=home,
    )
    open_log(Home(home))

    def show(event: DaemonEvent) -> None:
        print(event.name, event.subject, flush=True)

    ended = asyncio.run(run_daemon(settings, keys=keys.load_keys(Home(home)), runtime=runtime, on_event=show))
    return ended.exit_code


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
