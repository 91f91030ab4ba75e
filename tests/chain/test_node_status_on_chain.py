"""`parallelix-node status` with a deployment file and an endpoint: the locker itself says what became of the node."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from chain_scene import PRLX, Ethereum, funded, key

from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.rpc import Rpc
from parallelix.chain.wallet import Wallet
from parallelix.node import cli, keys, standing, state
from parallelix.node.home import Home
from parallelix.protocol.signing import NodeKey

DAY = 86_400
STAKE_WEI = 50_000 * PRLX
KEY = NodeKey(bytes.fromhex("42" * 32))


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ethereum: Ethereum, deployment_path: Path) -> Home:
    """A node that has served as node 1."""
    monkeypatch.setenv("PARALLELIX_HOME", str(tmp_path / "node"))
    for name in standing.RPC_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    made = Home(tmp_path / "node")
    made.root.mkdir(mode=0o700)
    made.node_key.touch(mode=0o600)
    made.node_key.write_text(keys.NODE_KEY_PREFIX + "42" * 32)
    made.config.write_text(
        f'chain_id = 31337\ndeployment_file = "{deployment_path}"\nrpc_url = "{ethereum.url}"\n'
        'coordinator = "http://127.0.0.1:1/api"\n'
    )
    state.write(made, state.Stored(state=state.State.ACTIVE_IDLE, node_id="1", changed_at=1), durable=False)
    return made


@pytest.fixture
def status(capsys: pytest.CaptureFixture[str]) -> Any:
    async def run() -> dict[str, Any]:
        capsys.readouterr()
        assert await asyncio.to_thread(cli.run, ["status", "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


async def test_the_chain_tells_each_state_of_a_node_from_its_stake_to_its_end(
    home: Home, status: Any, ethereum: Ethereum, rpc: Rpc, deployed: Deployment
) -> None:
    locker = NodeRegistryLockerCalls(deployed.address("NodeRegistryLocker"))
    token = PRLXCalls(deployed.address("PRLX"))
    deployer, operator = (Wallet(rpc, funded(ethereum.anvil, key(name))) for name in ("deployer", "operator"))
    unknown = await status()
    assert (unknown["state"], unknown["source"]) == ("RETIRED", "chain")
    assert unknown["state_reason"] == "it is not registered on this network"

    await deployer.send(token.transfer(key("operator").address, STAKE_WEI))
    await operator.send(token.approve(locker.address, STAKE_WEI))
    await operator.send(locker.register_node(STAKE_WEI, 1, KEY.key_hash))
    active = await status()
    assert (active["state"], active["warnings"], active["chain_id"]) == ("ACTIVE.idle", [], 31337)
    assert active["block"] == await rpc.block_number()
    assert active["contracts"] == [
        {"name": name, "address": deployed.address(name)} for name in ("NodeRegistryLocker", "OperatorStakeRewardsV2")
    ]

    await operator.send(locker.request_unstake(1))
    cooling = await status()
    assert cooling["state"] == "COOLING" and cooling["state_reason"].startswith("its stake is withdrawable from 20")

    ethereum.anvil.pass_time(7 * DAY)
    await operator.send(locker.withdraw_stake(1))
    retired = await status()
    assert (retired["state"], retired["state_reason"]) == ("RETIRED", "its stake was withdrawn")


async def test_a_chain_that_does_not_answer_is_said_to_and_what_was_heard_last_stays(
    home: Home, status: Any, ethereum: Ethereum
) -> None:
    await status()
    home.config.write_text(home.config.read_text().replace(ethereum.url, "http://127.0.0.1:1"))
    later = await status()
    assert (later["state"], later["source"]) == ("RETIRED", "chain")
    assert later["not_heard"].startswith("the chain was not read: http://127.0.0.1:1")


async def test_a_deployment_file_that_is_not_there_is_named(home: Home, status: Any) -> None:
    lines = home.config.read_text().splitlines()
    home.config.write_text("\n".join([lines[0], 'deployment_file = "/nowhere/deployment.json"', *lines[2:]]))
    assert (await status())["not_heard"] == "/nowhere/deployment.json: there is no such deployment file"
