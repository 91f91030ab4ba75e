"""Whoever loses its stake is told at once, and its node process ends well, so that nothing starts it again."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
from real_processes import CATALOGUE, eventually, scene

from bench.echo_node import echo_node
from bench.relay import Relay
from parallelix.devnet.network import Network, Seat, catalogue_entry, free_port, real_node
from parallelix.devnet.processes import Child
from parallelix.node.home import Home

GGUF = Path(__file__).resolve().parents[2] / "models" / "parallelix-demo.gguf"
COOLDOWN_ENDS_AT = 1_900_000_000
COOLDOWN_ENDS_ON = b"2030-03-17 17:46:40 UTC"
REAL, COOLING, GONE = 1, 2, 3
CODES = {REAL: b"in_cooldown", COOLING: b"in_cooldown", GONE: b"not_staked"}
POLL = b"GET /api/operator/inbox"


async def test_an_edit_of_the_registry_answers_the_waiting_poll_with_403_and_the_node_exits_0(tmp_path: Path) -> None:
    """A node as operators run it, and two more. Heartbeats are seldom: only the poll can tell them."""
    digest = sha256(GGUF.read_bytes()).hexdigest()
    catalogue = "\n".join((CATALOGUE, catalogue_entry("parallelix-demo", digest, context_tokens=1024)))
    port = free_port()
    async with AsyncExitStack() as stack:
        lines = {number: await stack.enter_async_context(Relay(port).running()) for number in CODES}

        def command(seat: Seat) -> Sequence[str]:
            of_node = real_node(GGUF) if seat.number == REAL else echo_node()
            return of_node(replace(seat, coordinator_url=f"{lines[seat.number].url}/api"))

        settings = {"heartbeat_seconds": 600, "offline_seconds": 3600}
        on = await stack.enter_async_context(
            scene(tmp_path, nodes=3, command=command, catalogue=catalogue, port=port, **settings)
        )
        for line in lines.values():
            await eventually(lambda line=line: polls(line), lambda count: count == 1)
        edit(on.network)

        for number, node in on.network.nodes.items():
            assert await eventually(lambda node=node: exit_code(node), lambda code: code is not None) == 0
            refusal = lines[number].down.rpartition(b"HTTP/1.1 403")[2]
            assert b'{"error":"%s","message":"' % CODES[number] in refusal
            assert (COOLDOWN_ENDS_ON in refusal) == (number != GONE)
            assert await polls(lines[number]) == 1, "it had to ask again to be told"
            log = Home(on.network.seats[number].home).log.read_text()
            assert CODES[number].decode() in log and "exit_code=0" in log
        assert "in_cooldown" in on.network.nodes[REAL].tail()


async def exit_code(node: Child) -> int | None:
    return node.exit_code


async def polls(line: Relay) -> int:
    return line.up.count(POLL)


def edit(network: Network) -> None:
    """Two nodes unstake, the third is no longer there."""
    listed = {int(each.node_id): each for each in network.read_registry()}
    unstaking = [listed[network.seats[number].node_id] for number in (REAL, COOLING)]
    network.write_registry(
        [msgspec.structs.replace(each, state="cooling", cooldown_ends_at=COOLDOWN_ENDS_AT) for each in unstaking]
    )
