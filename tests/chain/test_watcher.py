"""Confirmed blocks come once, whole and in order, whatever the endpoint does; what cannot be so is not believed."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from bench.chain_world import TOKEN, ChainWorld, chain_world
from lying_endpoint import Endpoint, Gone, Refusal, Twist, endpoint_of
from parallelix.chain import watcher as watching
from parallelix.chain.abi import Event
from parallelix.chain.bindings.credit_vault import Deposited, WithdrawalRequested
from parallelix.chain.bindings.node_registry_locker import NodeRegistered
from parallelix.chain.books import AccountBooks, Expected
from parallelix.chain.errors import (
    ChainLies,
    ChainUnreachable,
    EndpointsDiffer,
    LogRefused,
    ReorgTooDeep,
    RpcRefused,
    StateMissing,
    WrongChain,
)
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.watcher import Poll, Position, Watcher

CONFIRMATIONS = 3
NOTHING = Expected(total_deposits_wei=0, total_principal_wei=0, node_count=0, batch_count=1)


@pytest.fixture(scope="module")
def shared_world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChainWorld]:
    with chain_world(tmp_path_factory.mktemp("world")) as world:
        world.person("ann")
        world.person("bob")
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


class Scene:
    """A watcher over an endpoint that may lie, and what it was told."""

    def __init__(self, world: ChainWorld, rpc: Rpc, check_rpc: Rpc | None = None) -> None:
        self.world, self.rpc, self.check_rpc = world, rpc, check_rpc
        self.watcher = self.watch(None)

    def watch(self, cursor: Position | None, confirmations: int = CONFIRMATIONS) -> Watcher:
        return Watcher(
            self.rpc, self.world.deployed, confirmations=confirmations, cursor=cursor, check_rpc=self.check_rpc
        )

    async def take(self) -> Poll:
        """One poll, whose span is applied."""
        poll = await self.watcher.poll()
        if poll.span is not None:
            self.watcher.applied(poll.span)
        return poll

    def deposit(self, name: str = "ann", amount: int = TOKEN) -> None:
        self.world.do(self.world.person(name), self.world.vault.deposit(amount))

    def confirm(self) -> None:
        self.world.mine(CONFIRMATIONS)


@pytest.fixture
async def scene(world: ChainWorld, endpoint: Endpoint) -> AsyncIterator[Scene]:
    async with connected(endpoint.url, tries=1) as rpc:
        yield Scene(world, rpc)


@pytest.fixture
async def checked_scene(world: ChainWorld, endpoint: Endpoint) -> AsyncIterator[tuple[Scene, Endpoint]]:
    """With a second endpoint, which may lie too."""
    async with AsyncExitStack() as stack:
        second = await stack.enter_async_context(endpoint_of(world.anvil.url))
        rpcs = [await stack.enter_async_context(connected(each.url, tries=1)) for each in (endpoint, second)]
        yield Scene(world, *rpcs), second


def events_in(poll: Poll) -> list[Event]:
    return [each.event for each in poll.span.happened] if poll.span is not None else []


# Blocks in order ------------------------------------------------------------------------------------------------------


async def test_the_first_span_begins_with_the_deployment_and_the_next_follows_without_a_gap(scene: Scene) -> None:
    scene.deposit("ann", 5 * TOKEN)
    scene.confirm()

    first = await scene.take()
    scene.deposit("bob", 7 * TOKEN)
    scene.confirm()
    second = await scene.take()

    assert first.span is not None and second.span is not None
    assert first.span.first_block == scene.world.deployed.first_block
    assert second.span.first_block == first.span.last.number + 1
    assert second.span.last.number == second.head - CONFIRMATIONS
    ann, bob = (scene.world.person(name).address for name in ("ann", "bob"))
    assert events_in(first) == [Deposited(account=ann, amount=5 * TOKEN, deposit=5 * TOKEN)]
    assert events_in(second) == [Deposited(account=bob, amount=7 * TOKEN, deposit=7 * TOKEN)]
    (happened,) = second.span.happened
    block = scene.world.block(happened.log.block_number)
    assert happened.log.block_hash == block["hash"]
    assert second.span.times == {happened.log.block_number: int(block["timestamp"], 16)}


async def test_what_happens_in_one_block_keeps_its_order(scene: Scene) -> None:
    ann = scene.world.person("ann")
    scene.world.send(ann, scene.world.vault.deposit(3))
    scene.world.send(ann, scene.world.vault.deposit(4))
    scene.world.send(ann, scene.world.vault.request_withdrawal(5))
    scene.confirm()
    scene.world.mine()

    poll = await scene.take()

    assert [type(each) for each in events_in(poll)] == [Deposited, Deposited, WithdrawalRequested]
    assert [each.amount for each in events_in(poll) if isinstance(each, Deposited)] == [3, 4]


async def test_a_block_is_believed_only_under_its_confirmations(scene: Scene) -> None:
    await scene.take()
    scene.deposit()

    for _ in range(CONFIRMATIONS):
        assert events_in(await scene.take()) == []
        scene.world.mine()

    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


async def test_a_span_comes_again_until_it_is_applied_and_a_new_watcher_goes_on_behind_it(scene: Scene) -> None:
    scene.deposit()
    scene.confirm()

    polls = [await scene.watcher.poll(), await scene.watcher.poll()]

    span = polls[0].span
    assert span is not None and span == polls[1].span
    scene.watcher.applied(span)
    successor = scene.watch(scene.watcher.cursor)
    poll = await successor.poll()
    assert poll.current and poll.span is None
    scene.world.mine()
    found = (await successor.poll()).span
    assert found is not None
    assert found.first_block == found.last.number == span.last.number + 1


async def test_a_chain_that_stands_still_is_asked_nothing_but_its_head(scene: Scene, endpoint: Endpoint) -> None:
    await scene.take()
    quiet = await scene.take()
    endpoint.asked.clear()

    assert await scene.take() == quiet
    assert endpoint.asked == {"eth_getBlockByNumber": 1}


async def test_blocks_of_long_ago_come_in_pieces_and_everything_since_is_not_current(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SPAN_BLOCKS_MAX", 5)
    scene.deposit()
    scene.confirm()

    polls = [await scene.take()]
    while not polls[-1].current:
        polls.append(await scene.take())

    spans = [poll.span for poll in polls if poll.span is not None]
    assert len(spans) > 2
    assert all(one.last.number + 1 == two.first_block for one, two in pairwise(spans))
    assert [type(each) for poll in polls for each in events_in(poll)] == [Deposited]
    assert spans[-1].last.number == scene.world.head - CONFIRMATIONS


async def test_a_whole_span_goes_to_the_newest_confirmed_block_at_once(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "SPAN_BLOCKS_MAX", 5)

    poll = await scene.watcher.poll(whole=True)

    assert poll.current and poll.span is not None
    assert poll.span.last.number == scene.world.head - CONFIRMATIONS


# What is not confirmed ------------------------------------------------------------------------------------------------


async def test_withdrawal_requests_show_before_they_are_confirmed_and_go_with_their_block(scene: Scene) -> None:
    scene.deposit()
    scene.confirm()
    await scene.take()
    ann = scene.world.person("ann")
    scene.world.do(ann, scene.world.vault.request_withdrawal(TOKEN // 2))

    polls: list[Poll] = []
    for _ in range(CONFIRMATIONS):
        polls.append(await scene.take())
        scene.world.mine()
    scene.world.anvil.ask("anvil_reorg", CONFIRMATIONS + 1, [])
    gone = await scene.take()

    for poll in polls:
        (request,) = poll.provisional
        assert isinstance(request.event, WithdrawalRequested)
        assert (request.event.account, request.event.amount) == (ann.address, TOKEN // 2)
    assert gone.current and gone.provisional == ()


async def test_a_reorg_within_the_confirmations_leaves_no_trace(scene: Scene) -> None:
    await scene.take()
    scene.deposit("ann")
    await scene.take()
    head_hash = scene.world.block(scene.world.head)["hash"]

    scene.world.anvil.ask("anvil_reorg", 2, [])
    assert scene.world.block(scene.world.head)["hash"] != head_hash
    scene.deposit("bob")
    scene.confirm()

    poll = await scene.take()
    assert [each.account for each in events_in(poll) if isinstance(each, Deposited)] == [
        scene.world.person("bob").address
    ]


async def test_a_reorg_below_what_was_confirmed_is_told_and_nothing_follows(scene: Scene) -> None:
    poll = await scene.take()
    cursor = scene.watcher.cursor
    assert cursor is not None and poll.span is not None

    scene.world.anvil.ask("anvil_reorg", CONFIRMATIONS + 2, [])
    with pytest.raises(ReorgTooDeep):
        await scene.take()
    scene.deposit()
    scene.confirm()

    with pytest.raises(ReorgTooDeep, match=f"block {cursor.block}: read with hash {cursor.hash}") as caught:
        await scene.take()
    assert caught.value.theirs == scene.world.block(cursor.block)["hash"]
    assert scene.watcher.cursor == cursor


async def test_a_block_whose_parent_is_not_the_cursor_is_a_reorg_too(scene: Scene, endpoint: Endpoint) -> None:
    await scene.take()
    scene.confirm()
    assert scene.watcher.cursor is not None
    first = scene.watcher.cursor.block + 1

    def orphan(method: str, parameters: list[Any], result: Any) -> Any:
        return {**result, "parentHash": "0x" + "77" * 32} if asks_block(method, parameters, first) else result

    endpoint.twist = orphan
    with pytest.raises(ReorgTooDeep, match="0x7777"):
        await scene.take()


# Lagging --------------------------------------------------------------------------------------------------------------


async def test_an_endpoint_that_falls_behind_says_nothing_new_until_the_chain_is_taken_to_be_shorter(
    scene: Scene, endpoint: Endpoint
) -> None:
    scene.confirm()
    await scene.take()
    before, behind = scene.world.head, hex(scene.world.head - 2)
    endpoint.twist = lambda method, parameters, result: (
        scene.world.block(int(behind, 16)) if asks_head(method, parameters) else result
    )

    lagging = [await scene.take() for _ in range(watching.LAG_POLLS_MAX)]

    assert {(poll.current, poll.span, poll.head) for poll in lagging} == {(False, None, before - 2)}
    assert (await scene.take()).current
    endpoint.be_honest()
    assert (await scene.take()).head == before


async def test_an_endpoint_without_the_cursors_block_is_behind_and_not_reorganised(
    scene: Scene, endpoint: Endpoint
) -> None:
    await scene.take()
    scene.confirm()
    assert scene.watcher.cursor is not None
    cursor = scene.watcher.cursor.block
    endpoint.twist = lambda method, parameters, result: None if asks_block(method, parameters, cursor) else result

    poll = await scene.take()

    assert (poll.current, poll.span) == (False, None)


async def test_a_span_that_changes_while_it_is_read_is_read_again(scene: Scene, endpoint: Endpoint) -> None:
    scene.deposit()
    scene.confirm()
    last = scene.world.head - CONFIRMATIONS
    asked = 0

    def jump(method: str, parameters: list[Any], result: Any) -> Any:
        nonlocal asked
        if asks_block(method, parameters, last):
            asked += 1
            return {**result, "timestamp": hex(asked)}
        return result

    endpoint.twist = jump
    poll = await scene.take()
    assert (poll.current, poll.span) == (False, None) and asked >= 2

    endpoint.be_honest()
    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


# Lies about logs ------------------------------------------------------------------------------------------------------


Logs = list[dict[str, Any]]


def twisted_logs(change: Callable[[Logs], Logs]) -> Twist:
    def twist(method: str, _parameters: list[Any], result: Any) -> Any:
        return change(result) if method == "eth_getLogs" else result

    return twist


LIES: dict[str, tuple[Callable[[Logs], Logs], str]] = {
    "of another contract": (lambda logs: [{**logs[0], "address": "0x" + "22" * 20}], "was not asked for"),
    "of another event": (
        lambda logs: [{**logs[0], "topics": ["0x" + "11" * 32, *logs[0]["topics"][1:]]}],
        "has no such event",
    ),
    "of another contract's event": (
        lambda logs: [{**logs[0], "topics": ["0x" + NodeRegistered.LAYOUT.topic.hex(), *logs[0]["topics"][1:]]}],
        "has no such event",
    ),
    "of a later block": (lambda logs: [{**logs[0], "blockNumber": hex(10**6)}], "asked for blocks"),
    "of an earlier block": (lambda logs: [{**logs[0], "blockNumber": "0x0"}], "asked for blocks"),
    "of another block's hash": (lambda logs: [{**logs[0], "blockHash": "0x" + "44" * 32}], "by the log it is 0x4444"),
    "in a place that is taken": (
        lambda logs: [logs[0], {**logs[0], "transactionHash": "0x" + "55" * 32}],
        "another one in the same place",
    ),
    "of two blocks with one number": (
        lambda logs: [logs[0], {**logs[0], "logIndex": "0x99", "blockHash": "0x" + "66" * 32}],
        "by the log it is 0x6666",
    ),
    "with a field too few": (lambda logs: [{**logs[0], "data": logs[0]["data"][:-64]}], "Deposited"),
    "without its account": (lambda logs: [{**logs[0], "topics": logs[0]["topics"][:1]}], "indexed fields"),
}


@pytest.mark.parametrize("lie", LIES)
async def test_a_log_that_cannot_be_is_refused_and_the_truth_believed_afterwards(
    scene: Scene, endpoint: Endpoint, lie: str
) -> None:
    scene.deposit()
    scene.confirm()
    change, words = LIES[lie]
    endpoint.twist = twisted_logs(change)

    with pytest.raises(LogRefused, match=words):
        await scene.take()

    assert scene.watcher.cursor is None
    endpoint.be_honest()
    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


@pytest.mark.parametrize("mark", [{"removed": True}, {"blockNumber": None}, {"blockHash": "0x12"}, {"logIndex": "?"}])
async def test_a_log_in_no_block_is_no_proper_answer(scene: Scene, endpoint: Endpoint, mark: dict[str, Any]) -> None:
    scene.deposit()
    scene.confirm()
    endpoint.twist = twisted_logs(lambda logs: [{**each, **mark} for each in logs])

    with pytest.raises(ChainUnreachable):
        await scene.take()


async def test_logs_that_come_twice_or_out_of_order_count_once_and_in_order(scene: Scene, endpoint: Endpoint) -> None:
    for amount in (1, 2, 3):
        scene.deposit("ann", amount)
    scene.confirm()
    endpoint.twist = twisted_logs(lambda logs: [*reversed(logs), *logs])

    poll = await scene.take()

    assert [each.amount for each in events_in(poll) if isinstance(each, Deposited)] == [1, 2, 3]


def only_where(place: str, change: Callable[[Logs], Logs]) -> Twist:
    """Twists the logs of one kind of question: by "fromBlock", or by "blockHash"."""

    def twist(method: str, parameters: list[Any], result: Any) -> Any:
        return change(result) if method == "eth_getLogs" and place in parameters[0] else result

    return twist


async def test_logs_that_the_endpoints_index_does_not_have_yet_are_found_in_their_block(
    scene: Scene, endpoint: Endpoint
) -> None:
    for amount in (1, 2, 3):
        scene.deposit("ann", amount)
    scene.confirm()
    endpoint.twist = only_where("fromBlock", lambda logs: logs[:1])

    poll = await scene.take()

    assert [each.amount for each in events_in(poll) if isinstance(each, Deposited)] == [1, 2, 3]


async def test_a_log_that_its_block_does_not_know_is_refused(scene: Scene, endpoint: Endpoint) -> None:
    scene.deposit()
    scene.confirm()
    endpoint.twist = only_where("blockHash", lambda _logs: [])

    with pytest.raises(LogRefused, match="it is not there when its block is asked by itself"):
        await scene.take()


async def test_blocks_without_logs_of_ours_are_not_asked_by_themselves(scene: Scene, endpoint: Endpoint) -> None:
    await scene.take()
    scene.confirm()
    endpoint.asked.clear()

    await scene.take()

    # The span's, and those after it.
    assert endpoint.asked["eth_getLogs"] == 2


async def test_an_endpoint_that_refuses_many_results_is_asked_for_fewer_blocks(
    scene: Scene, endpoint: Endpoint
) -> None:
    for amount in (1, 2, 3):
        scene.deposit("ann", amount)
    scene.confirm()

    def narrow(method: str, parameters: list[Any], result: Any) -> Any:
        where: dict[str, str] = parameters[0] if method == "eth_getLogs" else {}
        if "toBlock" in where and int(where["toBlock"], 16) - int(where["fromBlock"], 16) > 2:
            raise Refusal("query returned more than 10000 results")
        return result

    endpoint.twist = narrow
    poll = await scene.take()

    assert [each.amount for each in events_in(poll) if isinstance(each, Deposited)] == [1, 2, 3]
    assert poll.span is not None and poll.span.last.number == scene.world.head - CONFIRMATIONS


async def test_an_endpoint_that_always_refuses_is_not_asked_for_ever(scene: Scene, endpoint: Endpoint) -> None:
    def refuse(method: str, _parameters: list[Any], result: Any) -> Any:
        if method == "eth_getLogs":
            raise Refusal("daily request count exceeded")
        return result

    endpoint.twist = refuse
    with pytest.raises(RpcRefused, match="daily request count exceeded"):
        await scene.take()

    assert endpoint.asked["eth_getLogs"] <= watching.HALVINGS_MAX + 1


async def test_a_broken_connection_loses_nothing(scene: Scene, endpoint: Endpoint) -> None:
    scene.deposit()
    scene.confirm()

    def vanish(_method: str, _parameters: list[Any], _result: Any) -> Any:
        raise Gone

    endpoint.twist = vanish
    with pytest.raises(ChainUnreachable):
        await scene.take()
    endpoint.be_honest()

    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


async def test_another_chain_is_refused_before_a_block_is_read(scene: Scene, endpoint: Endpoint) -> None:
    scene.world.mine()
    other = msgspec.structs.replace(scene.world.deployed, chain_id=1)

    with pytest.raises(WrongChain, match="serves chain 31337, the deployment is on chain 1"):
        await Watcher(scene.rpc, other, confirmations=0, cursor=None).poll()

    assert set(endpoint.asked) == {"eth_chainId"}


# A second endpoint ----------------------------------------------------------------------------------------------------


async def test_two_endpoints_that_agree_are_believed(checked_scene: tuple[Scene, Endpoint]) -> None:
    scene, _ = checked_scene
    scene.deposit()
    scene.confirm()

    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


@pytest.mark.parametrize("liar", ["first", "second"])
async def test_a_deposit_that_only_one_endpoint_knows_is_not_believed(
    checked_scene: tuple[Scene, Endpoint], endpoint: Endpoint, liar: str
) -> None:
    scene, second = checked_scene
    scene.deposit("ann", 7)
    scene.confirm()
    lying = endpoint if liar == "first" else second
    lying.twist = twisted_logs(lambda logs: [{**each, "data": each["data"].replace("7", "9")} for each in logs])

    with pytest.raises(EndpointsDiffer, match=r"1 logs, .* among them alone, the check endpoint 1 logs"):
        await scene.take()

    lying.be_honest()
    assert [type(each) for each in events_in(await scene.take())] == [Deposited]


async def test_endpoints_of_two_forks_are_told(checked_scene: tuple[Scene, Endpoint]) -> None:
    scene, second = checked_scene
    last = scene.world.head - CONFIRMATIONS
    second.twist = lambda method, parameters, result: (
        {**result, "hash": "0x" + "33" * 32} if asks_block(method, parameters, last) else result
    )

    with pytest.raises(EndpointsDiffer, match=f"hash of block {last}"):
        await scene.take()


async def test_a_second_endpoint_that_is_behind_bounds_what_is_confirmed(checked_scene: tuple[Scene, Endpoint]) -> None:
    scene, second = checked_scene
    behind = scene.world.block(scene.world.head - 2)
    second.twist = lambda method, parameters, result: behind if asks_head(method, parameters) else result

    poll = await scene.take()

    assert poll.head == scene.world.head - 2
    assert poll.span is not None and poll.span.last.number == scene.world.head - 2 - CONFIRMATIONS


@pytest.mark.parametrize("hiding", ["first", "second"])
async def test_a_request_that_only_one_endpoint_shows_freezes_too(
    checked_scene: tuple[Scene, Endpoint], endpoint: Endpoint, hiding: str
) -> None:
    scene, second = checked_scene
    scene.deposit()
    scene.confirm()
    await scene.take()
    scene.world.do(scene.world.person("ann"), scene.world.vault.request_withdrawal(TOKEN))
    (endpoint if hiding == "first" else second).twist = twisted_logs(lambda _logs: [])

    assert [type(each.event) for each in (await scene.take()).provisional] == [WithdrawalRequested]


# Our books and theirs -------------------------------------------------------------------------------------------------


async def test_books_that_agree_pass_and_each_difference_is_named(scene: Scene) -> None:
    ann = scene.world.person("ann")
    scene.deposit("ann", 5 * TOKEN)
    scene.world.do(ann, scene.world.vault.request_withdrawal(2 * TOKEN))
    block = scene.world.head
    books = AccountBooks(deposit_wei=5 * TOKEN, settled_wei=0, requested_wei=2 * TOKEN)
    right = Expected(
        total_deposits_wei=5 * TOKEN,
        total_principal_wei=0,
        node_count=0,
        batch_count=1,
        accounts={ann.address: books},
        roots={0: "0x" + hashlib.sha256().hexdigest()},
    )

    await scene.watcher.compare(right, block=block)

    wrong: dict[str, tuple[str, dict[str, Any]]] = {
        "totalDeposits": ("vault", {"total_deposits_wei": 1}),
        "totalPrincipal": ("registry", {"total_principal_wei": 1}),
        "nodeCount": ("registry", {"node_count": 1}),
        "batchCount": ("anchor", {"batch_count": 2}),
        "rootOf(0)": ("anchor", {"roots": {0: "0x" + "01" * 32}}),
        f"deposits({ann.address})": ("vault", {"accounts": {ann.address: changed(books, deposit_wei=1)}}),
        f"settled({ann.address})": ("vault", {"accounts": {ann.address: changed(books, settled_wei=1)}}),
        f"requested({ann.address})": ("vault", {"accounts": {ann.address: changed(books, requested_wei=1)}}),
    }
    for what, (part, changes) in wrong.items():
        fields: dict[str, Any] = {name: getattr(right, name) for name in Expected.__dataclass_fields__} | changes
        with pytest.raises(ChainLies) as caught:
            await scene.watcher.compare(Expected(**fields), block=block)
        assert (caught.value.what, caught.value.part) == (what, part)


def changed(books: AccountBooks, **changes: int) -> AccountBooks:
    return msgspec.structs.replace(books, **changes)


async def test_books_are_compared_as_of_their_block(scene: Scene) -> None:
    block = scene.world.head
    scene.deposit()

    await scene.watcher.compare(NOTHING, block=block)


async def test_a_contract_that_was_not_deployed_yet_is_not_asked(scene: Scene) -> None:
    block = scene.world.deployed.first_block

    await scene.watcher.compare(NOTHING, block=block)


@pytest.mark.parametrize(
    "words", ["missing trie node 8d9f", "historical state abc is not available", "state at block #9 is pruned"]
)
async def test_an_endpoint_that_forgot_the_state_says_what_to_do(scene: Scene, endpoint: Endpoint, words: str) -> None:
    def forget(method: str, _parameters: list[Any], result: Any) -> Any:
        if method == "eth_call":
            raise Refusal(words)
        return result

    endpoint.twist = forget
    with pytest.raises(StateMissing, match="use an endpoint that keeps the state of old blocks"):
        await scene.watcher.compare(NOTHING, block=scene.world.head)


async def test_with_a_second_endpoint_the_views_are_its_own(
    checked_scene: tuple[Scene, Endpoint], endpoint: Endpoint
) -> None:
    scene, second = checked_scene

    await scene.watcher.compare(NOTHING, block=scene.world.head)

    assert endpoint.asked["eth_call"] == 0 < second.asked["eth_call"]


def asks_block(method: str, parameters: list[Any], number: int) -> bool:
    return method == "eth_getBlockByNumber" and parameters[0] == hex(number)


def asks_head(method: str, parameters: list[Any]) -> bool:
    return method == "eth_getBlockByNumber" and parameters[0] == "latest"
