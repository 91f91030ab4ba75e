"""A devnet's chain: found where set-up put it, deployed and staked once, and the same one after a stop of any kind."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from pathlib import Path

import pytest

import services
from parallelix.chain import inspection
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls, NodeRegistryLockerViews
from parallelix.chain.plan import LOCKER, VAULT
from parallelix.chain.rpc import connected
from parallelix.coordinator.store.store import Store
from parallelix.devnet import anvil
from parallelix.devnet.anvil import ChainMissing, find_anvil, find_sablier
from parallelix.devnet.chain import ChainPlan, LocalChain
from parallelix.devnet.network import CHAIN_ID, REQUESTER_WALLET, Network, Plan, Seat, free_port
from parallelix.devnet.processes import ProcessError
from parallelix.engine.rows import ChainCursorRow

PRLX = 10**18
STAKE_WEI = 50_000 * PRLX
WEEK = 7 * 86_400
KEY_HASH = b"\x01" * 32
SCRIPTS = services.REPOSITORY / "scripts"


def said(text: str) -> None:
    pass


@pytest.fixture
async def open_chain(tmp_path: Path) -> AsyncIterator[Callable[[], LocalChain]]:
    """Chains over one folder, one after the other. All are stopped afterwards."""
    opened: list[LocalChain] = []

    def open_one() -> LocalChain:
        plan = ChainPlan(anvil=services.anvil_binary(), sablier=find_sablier(os.environ), block_seconds=1)
        opened.append(LocalChain(plan, tmp_path, port=free_port()))
        return opened[-1]

    yield open_one
    for each in opened:
        await each.stop()


def test_what_set_up_installed_is_found(tmp_path: Path) -> None:
    machine = {"XDG_CACHE_HOME": str(tmp_path)}
    assert find_sablier(machine) is None
    for script, found in (("anvil.py", lambda: find_anvil(machine)), ("sablier.py", lambda: find_sablier(machine))):
        asked = "import sys, pathlib; sys.path.insert(0, sys.argv[1]); import {0} as it; print(it.folder())"
        command = [sys.executable, "-c", asked.format(script.removesuffix(".py")), str(SCRIPTS)]
        folder = Path(subprocess.run(command, env=machine, capture_output=True, text=True, check=True).stdout.strip())
        program = folder / "anvil" / "bin" / "anvil"
        program.parent.mkdir(parents=True)
        program.touch(mode=0o755)
        assert found() == (program if script == "anvil.py" else folder)


def test_an_anvil_that_is_missing_or_cannot_run_is_refused_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ChainMissing, match=rf"no anvil {re.escape(anvil.VERSION)}.*make setup-chain.*--no-chain"):
        find_anvil({"XDG_CACHE_HOME": str(tmp_path)})
    (tmp_path / "anvil").touch(mode=0o644)
    with pytest.raises(ChainMissing, match=r"ANVIL_BIN=.*anvil is no program"):
        find_anvil({"ANVIL_BIN": str(tmp_path / "anvil")})
    (tmp_path / "anvil").chmod(0o755)
    assert find_anvil({"ANVIL_BIN": str(tmp_path / "anvil")}) == tmp_path / "anvil"


async def test_a_chain_is_deployed_staked_and_funded_once_and_goes_on_with_its_blocks_and_its_time(
    open_chain: Callable[[], LocalChain],
) -> None:
    services.sablier_folder()
    chain = open_chain()
    await chain.start(said)
    deployed = chain.deployment
    staked = await chain.stake("operator1", KEY_HASH, STAKE_WEI)
    assert (staked.node_id, staked.active) == (1, True)
    assert await chain.is_new(REQUESTER_WALLET)
    await chain.fund(REQUESTER_WALLET, 3 * PRLX)
    await chain.deposit(REQUESTER_WALLET, 2 * PRLX)
    await chain.anvil.pass_time(WEEK)
    async with chain.connected() as rpc:
        assert inspection.failed(await inspection.inspect(rpc, deployed)) == []
        height = await rpc.block_number()
    await chain.stop()

    again = open_chain()
    await again.start(said)

    assert again.deployment == deployed and deployed.stream_id
    assert await again.stake("operator1", KEY_HASH, STAKE_WEI) == staked
    assert not await again.is_new(REQUESTER_WALLET)
    async with again.connected() as rpc:
        # Views of a block from before the stop, as whoever follows the chain asks them.
        vault = CreditVaultViews(rpc, deployed.address(VAULT), block=height)
        assert await vault.deposits(again.account(REQUESTER_WALLET).address) == 2 * PRLX
        assert await NodeRegistryLockerViews(rpc, deployed.address(LOCKER)).total_principal() == STAKE_WEI
        await rpc.request("evm_mine")
        assert await rpc.block_time() >= time.time() + WEEK - 60


async def test_a_stake_that_was_asked_back_is_not_put_down_anew(open_chain: Callable[[], LocalChain]) -> None:
    chain = open_chain()
    await chain.start(said)
    staked = await chain.stake("operator1", KEY_HASH, STAKE_WEI)
    locker = NodeRegistryLockerCalls(chain.deployment.address(LOCKER))
    await chain.send("operator1", locker.request_unstake(staked.node_id))

    found = await chain.stake("operator1", KEY_HASH, STAKE_WEI)

    assert (found.node_id, found.active) == (1, False) and found.withdrawable_at > time.time()


async def test_a_chain_without_its_blocks_is_not_taken_for_the_same(
    open_chain: Callable[[], LocalChain], tmp_path: Path
) -> None:
    chain = open_chain()
    await chain.start(said)
    await chain.stop()
    (tmp_path / "chain" / "anvil.json").unlink()

    with pytest.raises(ProcessError, match=r"the chain ends at block \d, .* choose another --folder"):
        await open_chain().start(said)


async def test_without_sablier_there_is_no_stream_and_keys_are_private(tmp_path: Path) -> None:
    plan = ChainPlan(anvil=services.anvil_binary(), sablier=None)
    chain = LocalChain(plan, tmp_path, port=free_port())
    try:
        await chain.start(said)
    finally:
        await chain.stop()

    assert chain.deployment.complete and chain.deployment.stream_id is None
    keys = [*(tmp_path / "keys").iterdir(), *(tmp_path / "coordinator").iterdir()]
    assert {f"{name}.key" for name in ("owner", "guardian", "validator", "liveness", "settler")} <= {
        path.name for path in keys
    }
    assert {oct(path.stat().st_mode & 0o777) for path in keys} == {"0o600"}


ABANDONED = """
import asyncio, sys
from pathlib import Path
from parallelix.devnet.anvil import Anvil
from parallelix.chain.rpc import connected

async def main():
    chain = Anvil(Path(sys.argv[1]), Path(sys.argv[2]), port=int(sys.argv[3]), block_seconds=60)
    await chain.start()
    async with connected(chain.url) as rpc:
        await rpc.request("anvil_mine", hex(7))
    print(chain.process.pid, flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the orderly stop is all there is")
async def test_whoever_is_killed_leaves_a_whole_chain_behind(tmp_path: Path) -> None:
    start_and_kill(tmp_path)

    chain = anvil.Anvil(services.anvil_binary(), tmp_path, port=free_port(), block_seconds=60)
    await chain.start()
    try:
        async with connected(chain.url) as rpc:
            assert await rpc.block_number() == 7
    finally:
        await chain.stop()


def start_and_kill(folder: Path) -> None:
    """Returns when anvil has ended, too."""
    command = [sys.executable, "-c", ABANDONED, str(services.anvil_binary()), str(folder), str(free_port())]
    starter = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    pid = int(starter.stdout.readline())
    starter.kill()
    starter.communicate()
    await_end(pid)


def await_end(pid: int) -> None:
    ends_at = time.monotonic() + 30
    try:
        while time.monotonic() < ends_at:
            os.kill(pid, 0)
            time.sleep(0.02)
        os.kill(pid, signal.SIGKILL)
        pytest.fail("anvil outlived whoever started it")
    except ProcessLookupError:
        return


def plan(folder: Path, *, on_chain: bool) -> Plan:
    chain = ChainPlan(anvil=services.anvil_binary(), sablier=None, block_seconds=1) if on_chain else None
    return Plan(folder=folder, catalogue="", node_command=never, node_count=2, settings={}, chain=chain)


def never(seat: Seat) -> list[str]:
    raise AssertionError(seat)


async def test_a_network_on_a_chain_gives_its_seats_the_ids_that_the_chain_gave(tmp_path: Path) -> None:
    network = Network(plan(tmp_path, on_chain=True))
    network.prepare()
    try:
        await network.start_chain()
        assert [seat.node_id for seat in network.seats.values()] == [1, 2]
        assert network.staked == [1, 2] and network.number_of("2") == 2
        assert network.chain is not None and await network.chain.is_new(REQUESTER_WALLET)
        assert network.chain.deployment.chain_id == CHAIN_ID
        settings = (tmp_path / "coordinator" / "coordinator.toml").read_text()
        assert f'rpc_url = "{network.chain.url}"' in settings
        assert f'deployment_file = "{network.chain.deployment_path}"' in settings
        assert not (tmp_path / "coordinator" / "registry.json").exists()
    finally:
        await network.stop()


async def test_a_network_does_not_go_on_below_a_chain_that_lost_a_block_it_took_in(tmp_path: Path) -> None:
    network = Network(plan(tmp_path, on_chain=True))
    network.prepare()
    try:
        await network.start_chain()
        assert network.chain is not None
        async with network.chain.connected() as rpc:
            newest = await rpc.block()
        assert newest is not None
        await network.chain.stop()
        take_in(network, newest.number, newest.hash)
        await network.start_chain()
        for number, block_hash in ((newest.number, f"0x{7:064x}"), (newest.number + 1_000_000, newest.hash)):
            await network.chain.stop()
            take_in(network, number, block_hash)
            with pytest.raises(ProcessError, match=rf"block {number}, .* has lost it.*choose another --folder"):
                await network.start_chain()
    finally:
        await network.stop()


def take_in(network: Network, block: int, block_hash: str) -> None:
    """As a coordinator notes it."""
    with closing(Store.open(network.store_url)) as store:
        store.acquire("test")
        row = ChainCursorRow(id=1, block=block, block_hash=block_hash, block_time=1, anchor_halt="")
        store.commit([row])


@pytest.mark.parametrize("on_chain", [True, False])
def test_a_folder_goes_on_as_it_began(tmp_path: Path, on_chain: bool) -> None:
    (tmp_path / "coordinator").mkdir(mode=0o700)
    (tmp_path / "coordinator" / "coordinator.db").touch()
    if on_chain:
        (tmp_path / "chain").mkdir()
    Network(plan(tmp_path, on_chain=on_chain)).prepare()

    wanted = "began with a chain.*without --no-chain" if on_chain else "began without a chain.*with --no-chain"
    with pytest.raises(ProcessError, match=wanted):
        Network(plan(tmp_path, on_chain=not on_chain)).prepare()
