"""What the contracts say becomes nodes and credits once, and what an endpoint makes up becomes nothing."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from following_scene import CONFIRMATIONS, POLL_SECONDS, RECONCILE_SECONDS, STAKE_WEI, Following, following

from bench.chain_world import TOKEN, ChainWorld, chain_world
from lying_endpoint import Endpoint, Gone, Hang, Refusal, Twist, endpoint_of
from parallelix.chain import watcher as watching
from parallelix.chain.bindings.credit_vault import Deposited, Spend
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorCalls, ExecutionAnchorViews
from parallelix.chain.bindings.node_registry_locker import NodeRegistered, UnstakeRequested
from parallelix.coordinator.onchain import follower as follower_module
from parallelix.coordinator.onchain.follower import RETRY_SECONDS_MAX, STILL_SECONDS
from parallelix.engine.ledger import available

Logs = list[dict[str, Any]]


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainWorld]:
    with chain_world(tmp_path_factory.mktemp("world")) as world:
        for name in ("ann", "bob", "operator"):
            world.person(name)
        yield world


@pytest.fixture
def world(shared_world: ChainWorld) -> Iterator[ChainWorld]:
    before = shared_world.anvil.ask("evm_snapshot")
    # anvil forgets a snapshot when a reorg reaches below it.
    shared_world.mine(8)
    yield shared_world
    shared_world.anvil.ask("evm_revert", before)


@pytest.fixture
async def endpoint(world: ChainWorld) -> AsyncIterator[Endpoint]:
    async with endpoint_of(world.anvil.url) as found:
        yield found


@pytest.fixture
async def scene(world: ChainWorld, endpoint: Endpoint, tmp_path: Path) -> AsyncIterator[Following]:
    """Caught up with an empty deployment."""
    async with following(world, endpoint, tmp_path / "data") as found:
        await found.caught_up()
        yield found


def logs_as(change: Callable[[Logs], Logs]) -> Twist:
    def twist(method: str, _parameters: list[Any], result: Any) -> Any:
        return change(result) if method == "eth_getLogs" else result

    return twist


def without(topic: bytes) -> Twist:
    """Loses the logs of one event."""
    return logs_as(lambda logs: [each for each in logs if each["topics"][0] != "0x" + topic.hex()])


def always(broken: type[Exception]) -> Twist:
    def twist(_method: str, _parameters: list[Any], _result: Any) -> Any:
        raise broken

    return twist


# What is true ---------------------------------------------------------------------------------------------------------


async def test_stakes_and_deposits_become_nodes_and_credits_under_their_confirmations(scene: Following) -> None:
    key_hash = scene.stake("operator")
    scene.deposit("ann", 5 * TOKEN)

    await scene.caught_up()
    assert (scene.engine.registrations, scene.available_wei("ann")) == ({}, 0)
    before = scene.mirror.cursor
    scene.confirm()
    await scene.caught_up()

    registration = scene.engine.registrations[1]
    assert (registration.owner, registration.stake_wei) == (scene.address("operator"), str(STAKE_WEI))
    assert (registration.node_key_hash, registration.state) == ("0x" + key_hash.hex(), "active")
    assert scene.available_wei("ann") == scene.engine.spendable_wei(scene.address("ann")) == 5 * TOKEN
    assert before is not None and scene.mirror.cursor is not None
    last = scene.mirror.cursor.block
    assert last == scene.world.head - CONFIRMATIONS
    assert scene.events("chain.span") == [{"first": before.block + 1, "last": last, "facts": 2}]


async def test_every_movement_of_the_vault_is_followed_to_the_wei(scene: Following) -> None:
    world, ann = scene.world, scene.world.person("ann")
    scene.deposit("ann", 9 * TOKEN)
    world.do(ann, world.vault.set_daily_limit(20_000 * TOKEN))
    world.do(ann, world.vault.set_daily_limit(7 * TOKEN))
    scene.ask_withdrawal("ann", 8 * TOKEN)
    world.do(world.roles["settler"], world.vault.settle([Spend(account=ann.address, cumulative_spent=2 * TOKEN)]))
    scene.confirm()
    await scene.caught_up()
    books = scene.mirror.accounts[ann.address]
    assert (books.deposit_wei, books.settled_wei, books.requested_wei) == (7 * TOKEN, 2 * TOKEN, 7 * TOKEN)
    assert scene.engine.spendable_wei(ann.address) == 0

    world.do(ann, world.vault.cancel_withdrawal())
    scene.ask_withdrawal("ann", 3 * TOKEN)
    world.anvil.ask("evm_increaseTime", 10)
    world.do(ann, world.vault.withdraw())
    scene.confirm()
    await scene.caught_up()

    assert (books.deposit_wei, books.requested_wei) == (4 * TOKEN, 0)
    assert scene.available_wei("ann") == scene.mirror.total_deposits_wei == 4 * TOKEN
    assert scene.halts == {}


async def test_a_node_that_leaves_is_cooling_and_then_retired(scene: Following) -> None:
    world, operator = scene.world, scene.world.person("operator")
    scene.stake("operator")
    world.do(operator, world.locker.request_unstake(1))
    scene.confirm()
    await scene.caught_up()
    assert scene.engine.registrations[1].state == "cooling"

    world.anvil.ask("evm_increaseTime", 8 * 86_400)
    world.do(operator, world.locker.withdraw_stake(1))
    scene.confirm()
    await scene.caught_up()

    assert scene.engine.registrations[1].state == "retired"
    assert scene.halts == {}


async def test_a_withdrawal_request_freezes_at_once_and_a_reorg_thaws_it(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()
    scene.ask_withdrawal("ann", 3 * TOKEN)

    await scene.caught_up()
    assert scene.engine.spendable_wei(scene.address("ann")) == 2 * TOKEN
    scene.world.anvil.ask("anvil_reorg", 1, [])
    await scene.caught_up()

    assert scene.engine.spendable_wei(scene.address("ann")) == 5 * TOKEN


async def test_what_a_reorg_takes_back_within_the_confirmations_was_never_there(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    await scene.caught_up()

    scene.world.anvil.ask("anvil_reorg", 2, [])
    scene.deposit("bob", 2 * TOKEN)
    scene.confirm()
    await scene.caught_up()

    assert (scene.available_wei("ann"), scene.available_wei("bob")) == (0, 2 * TOKEN)
    assert scene.mirror.total_deposits_wei == 2 * TOKEN and scene.halts == {}


async def test_a_restarted_coordinator_goes_on_where_its_store_is(
    world: ChainWorld, endpoint: Endpoint, tmp_path: Path
) -> None:
    async with following(world, endpoint, tmp_path / "data") as before:
        before.deposit("ann", 5 * TOKEN)
        before.confirm()
        await before.caught_up()
    before.deposit("ann", 2 * TOKEN)
    before.confirm()

    async with following(world, endpoint, tmp_path / "data") as after:
        assert after.mirror.cursor == before.mirror.cursor
        assert after.mirror.heard_at == 0
        await after.caught_up()

        assert after.available_wei("ann") == 7 * TOKEN
    with closing(sqlite3.connect(tmp_path / "data" / "coordinator.db")) as store:
        deposits = store.execute("SELECT amount_wei FROM transfers WHERE transfer_id LIKE 'deposit:%'").fetchall()
    assert sorted(deposits) == [(str(2 * TOKEN),), (str(5 * TOKEN),)]


async def test_nothing_is_current_before_all_that_is_confirmed_was_read(
    world: ChainWorld, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SPAN_BLOCKS_MAX", 4)
    async with following(world, endpoint, tmp_path / "data") as scene:
        scene.deposit("ann", 5 * TOKEN)
        scene.confirm()

        turns = 0
        while scene.mirror.heard_at == 0:
            assert scene.engine.spendable_wei(scene.address("ann")) == scene.available_wei("ann")
            assert await scene.follower.turn() == (0.0 if scene.mirror.heard_at == 0 else POLL_SECONDS)
            turns += 1

        assert turns > 3
        assert scene.mirror.cursor is not None and scene.mirror.cursor.block == world.head - CONFIRMATIONS
        assert scene.available_wei("ann") == 5 * TOKEN


# What is not ----------------------------------------------------------------------------------------------------------

DEPOSIT_TOPIC = "0x" + Deposited.LAYOUT.topic.hex()


def invented(logs: Logs) -> Logs:
    """A second deposit, like the first, in the next place of the block."""
    found = [each for each in logs if each["topics"][0] == DEPOSIT_TOPIC]
    return [*logs, *({**each, "logIndex": hex(int(each["logIndex"], 16) + 1)} for each in found)]


def enlarged(logs: Logs) -> Logs:
    """A deposit ten times as large, with a total that fits it."""
    return [
        {**each, "data": "0x" + 2 * f"{50 * TOKEN:064x}"} if each["topics"][0] == DEPOSIT_TOPIC else each
        for each in logs
    ]


def anothers(logs: Logs) -> Logs:
    """A deposit by somebody else."""
    account = "0x" + "00" * 12 + "77" * 20
    return [
        {**each, "topics": [DEPOSIT_TOPIC, account]} if each["topics"][0] == DEPOSIT_TOPIC else each for each in logs
    ]


LIES: dict[str, tuple[Twist, str, str]] = {
    "a lost deposit": (without(Deposited.LAYOUT.topic), "vault", "totalDeposits is 0 by the logs"),
    "an invented deposit": (logs_as(invented), "vault", "by our books it would be"),
    "a larger deposit": (logs_as(enlarged), "vault", "totalDeposits is 50000000000000000000 by the logs"),
    "another's deposit": (logs_as(anothers), "vault", r"deposits\(0x7777"),
    "a lost stake": (without(NodeRegistered.LAYOUT.topic), "registry", "totalPrincipal is 0 by the logs"),
    "no logs at all": (logs_as(lambda _logs: []), "vault", "totalDeposits is 0 by the logs"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_about_logs_halts_its_part_before_anything_is_credited_and_heals(
    scene: Following, lie: str
) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.stake("operator")
    scene.confirm()
    before = scene.mirror.cursor
    twist, part, words = LIES[lie]

    scene.endpoint.twist = twist
    first, second = await scene.follower.turn(), await scene.follower.turn()

    assert (first, second) == (POLL_SECONDS, 2 * POLL_SECONDS)
    assert list(scene.halts) == [part]
    assert (scene.available_wei("ann"), scene.engine.registrations, scene.mirror.cursor) == (0, {}, before)
    with pytest.raises(AssertionError, match=words):
        raise AssertionError(scene.halts[part])

    scene.endpoint.be_honest()
    await scene.caught_up()

    assert scene.halts == {}
    assert scene.available_wei("ann") == 5 * TOKEN and list(scene.engine.registrations) == [1]


async def test_a_lie_is_told_once_and_its_end_too(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    scene.endpoint.twist = without(Deposited.LAYOUT.topic)
    for _ in range(3):
        await scene.follower.turn()
    scene.endpoint.be_honest()
    await scene.caught_up()

    # What a step without rows tells comes with the loop's next turn.
    await asyncio.sleep(0)

    told = Counter(name for name, _ in scene.logged)
    assert told == dict.fromkeys(("chain.failed", "chain.halted", "chain.span", "chain.resumed", "chain.recovered"), 1)
    assert scene.events("chain.failed")[0]["code"] == "chain.lies"


async def test_a_reorg_below_what_was_believed_halts_the_chain_and_changes_no_books(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()

    scene.world.anvil.ask("anvil_reorg", CONFIRMATIONS + 1, [])
    scene.deposit("bob", 2 * TOKEN)
    scene.confirm()
    await scene.follower.turn()

    assert list(scene.halts) == ["chain"]
    assert "reorganised deeper" in scene.halts["chain"]
    scene.coordinator.measure()
    measured = scene.coordinator.metrics.text().decode()
    assert 'parallelix_chain_halted{part="chain"} 1.0' in measured
    assert 'parallelix_chain_halted{part="vault"} 0.0' in measured
    assert f"parallelix_chain_block {float(scene.mirror.cursor.block if scene.mirror.cursor else 0)}" in measured
    assert (scene.available_wei("ann"), scene.available_wei("bob")) == (5 * TOKEN, 0)


async def test_a_batch_that_is_not_ours_halts_the_anchor_and_nothing_else(scene: Following) -> None:
    world = scene.world
    validator = world.roles["validator"]
    anchor = ExecutionAnchorCalls(world.deployed.address("ExecutionAnchor"))
    world.do(validator, anchor.commit_sampling(0, b"\x01" * 32))
    head = await ExecutionAnchorViews(scene.rpc, anchor.address).head()
    world.do(validator, anchor.anchor_batch(head, b"\x02" * 32, 0, 0, b"\x03" * 32, 1, 0))
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()

    assert list(scene.halts) == ["anchor"]
    assert scene.available_wei("ann") == 10 * TOKEN


# Endpoints that do not answer -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", [Gone, Refusal])
async def test_an_endpoint_that_does_not_answer_halts_nothing_and_is_asked_ever_more_slowly(
    scene: Following, broken: type[Exception]
) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    scene.endpoint.twist = always(broken)

    pauses = [await scene.follower.turn() for _ in range(6)]

    assert pauses == [4, 8, 16, 32, 60, 60]
    assert scene.halts == {} and len(scene.events("chain.failed")) == 1
    scene.endpoint.be_honest()
    await scene.caught_up()
    assert scene.available_wei("ann") == 5 * TOKEN
    assert scene.events("chain.recovered") == [{"after_failures": 6}]


async def test_an_endpoint_that_falls_behind_is_noted_once_and_thaws_nothing(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    scene.ask_withdrawal("ann", 3 * TOKEN)
    await scene.caught_up()
    before = scene.world.block(scene.world.head - 1)
    scene.endpoint.twist = lambda method, parameters, result: (
        before if method == "eth_getBlockByNumber" and parameters[0] == "latest" else result
    )

    for _ in range(3):
        await scene.follower.turn()

    assert len(scene.events("chain.behind")) == 1 and scene.halts == {}
    assert scene.engine.spendable_wei(scene.address("ann")) == 2 * TOKEN


async def test_an_endpoint_that_shows_no_new_block_is_heard_of_no_more_and_the_log_says_so_once(
    scene: Following,
) -> None:
    old_seconds = 1_700_000_000
    scene.endpoint.twist = lambda method, parameters, result: (
        {**result, "timestamp": hex(old_seconds)}
        if method == "eth_getBlockByNumber" and parameters[0] == "latest"
        else result
    )
    scene.world.mine(1)
    for _ in range(3):
        await scene.follower.turn()
    assert scene.mirror.heard_at == old_seconds * 1000
    assert scene.events("chain.still") == []
    scene.seconds[0] += STILL_SECONDS
    for _ in range(3):
        await scene.follower.turn()
    assert scene.events("chain.still") == [{"head": scene.world.head, "seconds": STILL_SECONDS}]
    assert scene.halts == {}
    scene.endpoint.be_honest()
    scene.world.mine(1)
    await scene.caught_up()
    assert scene.mirror.heard_at > old_seconds * 1000


async def test_an_endpoint_that_hangs_is_left_after_a_while(
    world: ChainWorld, endpoint: Endpoint, tmp_path: Path
) -> None:
    async with following(world, endpoint, tmp_path / "data", patience_seconds=0.5) as scene:
        endpoint.twist = always(Hang)

        assert await scene.follower.turn() == POLL_SECONDS

        assert scene.events("chain.failed")[0]["code"] == "chain.unreachable" and scene.halts == {}
        endpoint.be_honest()
        await scene.caught_up()


async def test_where_old_state_is_gone_one_span_reaches_up_to_what_can_be_checked(
    world: ChainWorld, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SPAN_BLOCKS_MAX", 4)
    async with following(world, endpoint, tmp_path / "data") as scene:
        scene.deposit("ann", 5 * TOKEN)
        world.mine(3)
        scene.deposit("bob", 5 * TOKEN)
        scene.confirm()
        endpoint.twist = forgetting(below=world.head - CONFIRMATIONS)

        assert await scene.follower.turn() == 0.0
        assert scene.mirror.cursor is None
        await scene.caught_up()

        assert scene.mirror.cursor is not None and scene.mirror.cursor.block == world.head - CONFIRMATIONS
        assert (scene.available_wei("ann"), scene.available_wei("bob")) == (5 * TOKEN, 5 * TOKEN)


async def test_where_no_state_can_be_asked_nothing_is_believed_and_the_log_says_what_to_do(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    scene.endpoint.twist = forgetting(below=scene.world.head)

    for _ in range(3):
        await scene.follower.turn()

    assert scene.available_wei("ann") == 0 and scene.halts == {}
    (failed,) = scene.events("chain.failed")
    assert failed["code"] == "chain.state_missing" and "an archive node" in failed["error"]


def forgetting(*, below: int) -> Twist:
    def twist(method: str, parameters: list[Any], result: Any) -> Any:
        if method == "eth_call" and int(parameters[1], 16) < below:
            raise Refusal("missing trie node 00ff (path )")
        return result

    return twist


# Rounds over all books ------------------------------------------------------------------------------------------------


async def test_a_lost_log_that_changes_no_total_is_found_by_the_next_round_while_spans_go_on(scene: Following) -> None:
    scene.stake("operator")
    scene.confirm()
    await scene.caught_up()
    scene.world.do(scene.world.person("operator"), scene.world.locker.request_unstake(1))
    scene.confirm()
    scene.endpoint.twist = without(UnstakeRequested.LAYOUT.topic)
    await scene.caught_up()
    assert scene.halts == {} and scene.engine.registrations[1].state == "active"

    scene.endpoint.be_honest()
    scene.seconds[0] += RECONCILE_SECONDS
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()

    assert list(scene.halts) == ["registry"] and "nodes(1)" in scene.halts["registry"]
    assert scene.available_wei("ann") == 5 * TOKEN


async def test_a_view_that_lied_is_asked_again_and_the_halt_lifted(scene: Following) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()
    await scene.caught_up()
    scene.endpoint.twist = lambda method, _parameters, result: (
        f"0x{7:064x}" if method == "eth_call" and int(result, 16) == 5 * TOKEN else result
    )
    scene.seconds[0] += RECONCILE_SECONDS
    await scene.caught_up()
    assert list(scene.halts) == ["vault"]

    scene.endpoint.be_honest()
    await scene.caught_up()
    assert list(scene.halts) == ["vault"]
    scene.seconds[0] += RETRY_SECONDS_MAX
    await scene.caught_up()
    assert scene.halts == {}


async def test_a_round_takes_a_slice_a_turn_and_comes_to_everything(
    scene: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follower_module, "SLICE_ENTRIES", 1)
    scene.deposit("ann", 5 * TOKEN)
    scene.deposit("bob", 3 * TOKEN)
    scene.stake("operator")
    scene.confirm()
    await scene.caught_up()
    asked: list[str] = []

    def note(method: str, parameters: list[Any], result: Any) -> Any:
        if method == "eth_call":
            asked.append(parameters[0]["data"])
        return result

    scene.seconds[0] += RECONCILE_SECONDS
    scene.endpoint.twist = note
    per_turn: list[int] = []
    for _ in range(4):
        before = len(asked)
        await scene.follower.turn()
        per_turn.append(len(asked) - before)

    assert per_turn == [6, 6, 4, 0]
    for account in (scene.address("ann"), scene.address("bob")):
        assert any(account[2:].lower() in data for data in asked)
    assert available(scene.address("ann")) in scene.engine.ledger.accounts()
