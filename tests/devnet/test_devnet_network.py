from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

from parallelix.coordinator import registry_file
from parallelix.devnet.network import Network, Plan, Seat, catalogue_entry, free_port, is_free, real_node
from parallelix.devnet.processes import ProcessError
from parallelix.engine import catalogue
from parallelix.node.config import load_config
from parallelix.node.home import Home
from parallelix.node.keys import load_keys
from parallelix.protocol.encoding import to_hex

CATALOGUE = catalogue_entry("small", "ab" * 32, context_tokens=512, max_tokens_max=100)


def plan(folder: Path) -> Plan:
    return Plan(folder=folder, catalogue=CATALOGUE, node_command=ends_at_once, node_count=2, settings={})


def ends_at_once(seat: Seat) -> list[str]:
    return [sys.executable, "-c", f"import sys; print('no model for {seat.node_id}'); sys.exit(3)"]


def test_a_catalogue_entry_is_what_a_coordinator_reads() -> None:
    (entry,) = catalogue.parse(CATALOGUE).models

    assert (entry.name, entry.digests, entry.context_tokens) == ("small", ("ab" * 32,), 512)
    assert entry.max_tokens_default == entry.max_tokens_max == 100


def test_a_folder_has_all_that_a_coordinator_and_its_nodes_need_and_keeps_its_keys(tmp_path: Path) -> None:
    network = Network(plan(tmp_path))
    network.prepare()
    first = network.read_registry()
    Network(plan(tmp_path)).prepare()

    assert network.read_registry() == first
    found = registry_file.parse((tmp_path / "coordinator" / "registry.json").read_bytes())
    for seat in network.seats.values():
        home = Home(seat.home)
        assert found[seat.node_id].node_key_hash == to_hex(load_keys(home).node.key_hash)
        assert load_config(home).chain_id == 31337
    assert oct((tmp_path / "coordinator").stat().st_mode & 0o777) == "0o700"


def test_a_port_in_use_is_not_free() -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        assert not is_free(server.getsockname()[1])
    assert is_free(free_port())


def test_a_node_is_started_as_an_operator_starts_it(tmp_path: Path) -> None:
    seat = Seat(number=1, node_id=1001, home=tmp_path, coordinator_url="http://127.0.0.1:8400/api")

    command = real_node(Path("/models/small.gguf"), slots=3)(seat)

    assert command[1:4] == ["-m", "parallelix.node", "start"]
    assert " ".join(command).endswith(
        "--node-id 1001 --coordinator http://127.0.0.1:8400/api --slots 3 --gguf /models/small.gguf"
    )


async def test_a_node_that_ends_is_reported_with_its_last_words_and_a_coordinator_comes_back(tmp_path: Path) -> None:
    network = Network(plan(tmp_path))
    network.prepare()
    try:
        await network.start_coordinator()
        network.kill_coordinator()
        await network.start_coordinator()
        network.start_node(2)
        with pytest.raises(ProcessError, match="node 2 ended with 3:\nno model for 1002"):
            await network.online(2)
        assert (await network.view()).nodes_online == 0
    finally:
        await network.stop()
    assert network.coordinator is not None and network.coordinator.exit_code == 0
    with pytest.raises(ProcessLookupError):
        os.kill(network.coordinator.pid, 0)


async def test_a_coordinator_that_cannot_start_says_why(tmp_path: Path) -> None:
    network = Network(Plan(folder=tmp_path, catalogue="[[models]]\nname = 1\n", node_command=ends_at_once, settings={}))
    network.prepare()
    with pytest.raises(ProcessError, match=r"coordinator ended with 1:[\s\S]*catalogue"):
        await network.start_coordinator()
