"""What the contracts have said, read block by block from an endpoint that may lag, fail, or lie.

A *span* is a run of confirmed blocks that follows the last one without a gap. Whoever applied it says so (`applied`);
until then every poll reads it again, so nothing is lost with a process. What stands in blocks that are not confirmed
yet is *provisional*: it is read anew at every poll, so a reorganisation undoes it by itself.

What is checked of each answer: the chain's id; that the cursor's block still has the hash it was read with, and that
the span's first block names it as its parent; that the last block has one hash before and after the logs were read;
that each log is one that was asked for, from a block of the span with that block's hash, once; in short spans also
that a block whose bloom allows for logs of ours has those, and no others, when it is asked by itself. `compare` then
holds our books against the contracts' own views at the same block.

**Where trust ends.** Nothing here verifies Ethereum's own proofs: what is believed is what endpoints say.

- One endpoint that breaks, lags, loses logs, repeats or invents them, or jumps between nodes is found out: its logs do
  not add up to its views. Nothing of such a span is believed.
- One endpoint that lies on purpose and consistently, in blocks, logs and views alike, is believed. It can credit
  deposits that were never made (and so have work done unpaid), hide nodes, deposits and withdrawals, or say that
  batches were anchored. It cannot take anything out of a contract: settlements, clearances and reports are judged by
  the real chain, and a clearance pays no more than the real deposit. It learns no key.
- With a second endpoint (`check_rpc`) both must tell each span alike and the views are asked of the second, so both
  must lie the same lie. Either can then hold us up, which shows as staleness. A node of one's own is worth most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import msgspec
from eth_utils.crypto import keccak

from parallelix.chain import books
from parallelix.chain.abi import Address, Event, Happened, Log, read_log, table_of
from parallelix.chain.asking import answers
from parallelix.chain.bindings import credit_vault, execution_anchor, node_registry_locker, operator_stake_rewards
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import (
    BadResult,
    ChainUnreachable,
    EndpointsDiffer,
    LogRefused,
    ReorgTooDeep,
    RpcRefused,
    WrongChain,
)
from parallelix.chain.ports import Block
from parallelix.chain.rpc import Rpc

SPAN_BLOCKS_MAX = 2_000
"""What common endpoints answer at once; nearly seven hours of Ethereum."""
LOGS_MAX = 20_000
"""In one answer. More than a block's gas can pay for: 60 million, at more than 5,000 for the cheapest of our events."""
WHOLE_LOGS_MAX = 50_000
"""In a span that must be read to the end before it can be checked: some 100 MB."""
NEAR_BLOCKS_MAX = 64
"""Up to here every block of a span is looked at by itself. Blocks of long ago are many, and their logs long settled."""
BLOOM_BITS = 2_048
HALVINGS_MAX = 4
"""In one poll; the size that was found is kept for the next one."""
LAG_POLLS_MAX = 15
"""A minute of heads older than one that was seen before; after that the chain is taken to be shorter now."""
WATCHED: Mapping[str, tuple[type[Event], ...]] = {
    node_registry_locker.CONTRACT: (
        node_registry_locker.NodeRegistered,
        node_registry_locker.UnstakeRequested,
        node_registry_locker.StakeWithdrawn,
    ),
    credit_vault.CONTRACT: (
        credit_vault.Deposited,
        credit_vault.WithdrawalRequested,
        credit_vault.WithdrawalCancelled,
        credit_vault.Withdrawn,
        credit_vault.DailyLimitSet,
        credit_vault.SpendSettled,
    ),
    execution_anchor.CONTRACT: (execution_anchor.BatchAnchored,),
    operator_stake_rewards.CONTRACT: (
        operator_stake_rewards.NodeOnline,
        operator_stake_rewards.NodeOffline,
        operator_stake_rewards.SlotsVoided,
        operator_stake_rewards.LivenessReported,
    ),
}
PROVISIONAL: Mapping[str, tuple[type[Event], ...]] = {credit_vault.CONTRACT: (credit_vault.WithdrawalRequested,)}


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """The last block that was applied."""

    block: int
    hash: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """All that happened in the blocks `first_block` to `last`, in the chain's order; `times` are Unix seconds of the
    blocks in which something did."""

    first_block: int
    last: Block
    happened: tuple[Happened, ...]
    times: Mapping[int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Poll:
    """`head_time` is the Unix second of block `head`, `span` what to apply next, if anything. `current`: nothing
    confirmed is left beyond it, and `provisional` is all that happened since; else the endpoint lags or there is more
    to read, and `provisional` is empty."""

    head: int
    head_time: int
    current: bool
    span: Span | None = None
    provisional: tuple[Happened, ...] = ()


class Watcher:
    """Follows one deployment. One poll at a time."""

    def __init__(
        self,
        rpc: Rpc,
        deployment: Deployment,
        *,
        confirmations: int,
        cursor: Position | None,
        check_rpc: Rpc | None = None,
    ) -> None:
        assert confirmations >= 0, confirmations
        self.confirmations = confirmations
        self.cursor = cursor
        self._deployment = deployment
        wanted = _wanted(deployment, WATCHED)
        self._reader = _Reader(rpc, wanted)
        self._check = _Reader(check_rpc, wanted) if check_rpc is not None else None
        self._provisional = _wanted(deployment, PROVISIONAL)
        self._right_chain = False
        self._highest, self._lag_polls = 0, 0
        self._quiet: tuple[tuple[str, ...], Poll] | None = None
        """The heads and what was found there, when all of it had been applied."""

    @property
    def next_block(self) -> int:
        return self._deployment.first_block if self.cursor is None else self.cursor.block + 1

    async def poll(self, *, whole: bool = False) -> Poll:
        """What is new. With `whole` a span goes up to the newest confirmed block, however far that is.

        Raises `ChainUnreachable` and `RpcRefused` where nothing can be read, `WrongChain`, and `ChainDoubted` where
        what was read cannot be so. Nothing is lost by it: the next poll begins at the same block.
        """
        if not self._right_chain:
            await self._check_chain()
        heads = [await reader.head() for reader in self._readers]
        newest = min(heads, key=lambda each: (each.number, each.time))
        head = newest.number
        if self._is_lagging(head):
            return Poll(head=head, head_time=newest.time, current=False)
        seen = tuple(each.hash for each in heads)
        if self._quiet is not None and self._quiet[0] == seen:
            return self._quiet[1]
        if not await self._cursor_stands():
            return Poll(head=head, head_time=newest.time, current=False)
        found = await self._beyond_cursor(newest, whole=whole)
        self._quiet = (seen, found) if found.current and found.span is None else None
        return found

    def applied(self, span: Span) -> None:
        """The span is durable where it went to; the next begins after it."""
        assert span.first_block == self.next_block, (span.first_block, self.next_block)
        self.cursor = Position(block=span.last.number, hash=span.last.hash)

    async def compare(self, expected: books.Expected, *, block: int) -> None:
        """Our books against the contracts' views at `block`. Raises `ChainLies` at the first difference, `StateMissing`
        where the endpoint cannot tell, and what any question raises."""
        await books.compare((self._check or self._reader).rpc, self._deployment, expected, block=block)

    @property
    def _readers(self) -> list[_Reader]:
        return [self._reader] if self._check is None else [self._reader, self._check]

    async def _check_chain(self) -> None:
        for reader in self._readers:
            chain_id = await reader.rpc.chain_id()
            if chain_id != self._deployment.chain_id:
                raise WrongChain(
                    f"{reader.rpc.name} serves chain {chain_id}, the deployment is on chain"
                    f" {self._deployment.chain_id}; give an endpoint of that chain"
                )
        self._right_chain = True

    def _is_lagging(self, head: int) -> bool:
        """Behind what was seen before. A chain that stays shorter is believed in the end: it was reorganised."""
        if head >= self._highest or self._lag_polls >= LAG_POLLS_MAX:
            self._highest, self._lag_polls = head, 0
            return False
        self._lag_polls += 1
        return True

    async def _cursor_stands(self) -> bool:
        """False where an endpoint does not have the cursor's block (yet). Raises `ReorgTooDeep`."""
        if self.cursor is None:
            return True
        blocks = [await reader.rpc.block(self.cursor.block) for reader in self._readers]
        for at, block in enumerate(blocks):
            if block is not None and block.hash != self.cursor.hash:
                if at > 0:
                    raise self._differ(self.cursor.block, self.cursor.block, "hash", self.cursor.hash, block.hash)
                raise self._too_deep(block.hash)
        return None not in blocks

    async def _beyond_cursor(self, newest: Block, *, whole: bool) -> Poll:
        head, first = newest.number, self.next_block
        confirmed = head - self.confirmations
        span: Span | None = None
        if first <= confirmed:
            last = confirmed if whole else min(confirmed, first + SPAN_BLOCKS_MAX - 1)
            span = await self._span(first, last, logs_max=WHOLE_LOGS_MAX if whole else LOGS_MAX)
            if span is None or span.last.number < confirmed:
                return Poll(head=head, head_time=newest.time, current=False, span=span)
        provisional = await self._after(max(first, confirmed + 1), head)
        return Poll(head=head, head_time=newest.time, current=True, span=span, provisional=provisional)

    async def _span(self, first: int, last: int, *, logs_max: int) -> Span | None:
        """None when the chain moved, or an endpoint fell behind, while it was read."""
        found = await self._reader.read(first, last, logs_max=logs_max)
        if found is None:
            return None
        if self.cursor is not None and found.parent_hash != self.cursor.hash:
            raise self._too_deep(found.parent_hash)
        if self._check is not None:
            other = await self._check.read(first, found.last.number, logs_max=logs_max)
            if other is None:
                return None
            self._hold_against(first, found, other)
        return Span(first_block=first, last=found.last, happened=found.happened, times=found.times)

    async def _after(self, first: int, head: int) -> tuple[Happened, ...]:
        """What either endpoint says of blocks that are not confirmed: it only ever freezes."""
        if first > head:
            return ()
        found: dict[Log, Happened] = {}
        for reader in self._readers:
            for each in await reader.happened(self._provisional, first, head):
                found[each.log] = each
        return tuple(found.values())

    def _hold_against(self, first: int, found: _Read, other: _Read) -> None:
        last = found.last.number
        if found.last != other.last:
            raise self._differ(first, last, f"hash of block {last}", found.last.hash, other.last.hash)
        if found.parent_hash != other.parent_hash:
            raise self._differ(first, last, "hash before", found.parent_hash, other.parent_hash)
        ours, theirs = ([each.log for each in read.happened] for read in (found, other))
        if ours != theirs:
            raise self._differ(first, last, "there are", _alone(ours, theirs), _alone(theirs, ours))
        if found.times != other.times:
            raise self._differ(first, last, "times of blocks", str(found.times)[:80], str(other.times)[:80])

    def _differ(self, first: int, last: int, what: str, ours: str, theirs: str) -> EndpointsDiffer:
        return EndpointsDiffer(first, last, what=what, ours=ours, theirs=theirs)

    def _too_deep(self, theirs: str) -> ReorgTooDeep:
        assert self.cursor is not None
        return ReorgTooDeep(self.cursor.block, ours=self.cursor.hash, theirs=theirs, confirmations=self.confirmations)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A span as one endpoint tells it."""

    parent_hash: str
    last: Block
    happened: tuple[Happened, ...]
    times: Mapping[int, int]


_Wanted = Mapping[Address, Mapping[bytes, type[Event]]]


class _Reader:
    """One endpoint, and how many blocks it answers for at once."""

    def __init__(self, rpc: Rpc, wanted: _Wanted) -> None:
        self.rpc = rpc
        self._wanted = wanted
        self._window = SPAN_BLOCKS_MAX

    async def head(self) -> Block:
        head = await self.rpc.block()
        if head is None:
            raise ChainUnreachable(f"{self.rpc.name}: there is no newest block; the node is not ready yet")
        return head

    async def read(self, first: int, last: int, *, logs_max: int) -> _Read | None:
        """The blocks `first` to `last`, or fewer where they hold more than `logs_max` logs. None when they changed."""
        beginning, before = await self.rpc.block(first), await self.rpc.block(last)
        if beginning is None or before is None:
            return None
        logs, last = await self._windows(first, last, logs_max=logs_max)
        if last != before.number:
            before = await self.rpc.block(last)
        near = last - first < NEAR_BLOCKS_MAX
        numbers = range(first, last + 1) if near else sorted({log.block_number for log in logs})
        blocks = dict(zip(numbers, await answers([partial(self.rpc.block, each) for each in numbers]), strict=True))
        if near:
            logs = await self._with_overlooked(logs, blocks.values(), first, last)
        after = await self.rpc.block(last)
        if before is None or before != after:
            return None
        return _Read(
            parent_hash=beginning.parent_hash,
            last=before,
            happened=_decoded(logs, self._wanted),
            times=_times(logs, blocks),
        )

    async def happened(self, wanted: _Wanted, first: int, last: int) -> tuple[Happened, ...]:
        return _decoded(await self._logs(wanted, first, last), wanted)

    async def _with_overlooked(
        self, logs: list[Log], blocks: Iterable[Block | None], first: int, last: int
    ) -> list[Log]:
        """Asks each block that may hold logs of ours by itself: a node's index of logs can be behind its blocks."""
        asked = [block for block in blocks if block is not None and _may_hold(block.bloom, self._wanted)]
        topics = _topics(self._wanted)
        ask = partial(self.rpc.logs_of_block, addresses=list(self._wanted), topics=topics)
        found = [log for each in await answers([partial(ask, block.hash) for block in asked]) for log in each]
        numbers = {block.number for block in asked}
        only = [log for log in set(logs).difference(found) if log.block_number in numbers]
        if only:
            raise LogRefused(_name(min(only, key=_place)), "it is not there when its block is asked by itself")
        return checked([*logs, *found], self._wanted, first_block=first, last_block=last)

    async def _windows(self, first: int, last: int, *, logs_max: int) -> tuple[list[Log], int]:
        """Logs, and the last block that was reached. As many blocks at once as the endpoint bears."""
        found: list[Log] = []
        refused = 0
        while first <= last and len(found) < logs_max:
            until = min(last, first + self._window - 1)
            try:
                found += await self._logs(self._wanted, first, until)
            except ChainUnreachable:
                # It may have been too much to answer in time.
                self._window = max(1, self._window // 2)
                raise
            except RpcRefused:
                refused += 1
                if until == first or refused > HALVINGS_MAX:
                    raise
                self._window = (until - first + 1) // 2
            else:
                first = until + 1
        if not refused:
            self._window = min(SPAN_BLOCKS_MAX, self._window + self._window // 4 + 1)
        return found, first - 1

    async def _logs(self, wanted: _Wanted, first: int, last: int) -> list[Log]:
        logs = await self.rpc.logs(addresses=list(wanted), topics=_topics(wanted), first_block=first, last_block=last)
        if len(logs) > LOGS_MAX:
            raise RpcRefused(f"{self.rpc.name}: {len(logs)} logs in blocks {first} to {last}, at most {LOGS_MAX}")
        return checked(logs, wanted, first_block=first, last_block=last)


def checked(logs: Iterable[Log], wanted: _Wanted, *, first_block: int, last_block: int) -> list[Log]:
    """The logs in the chain's order, each once. Raises `LogRefused` for one that was not asked for, or for two that
    cannot both be."""
    ordered = sorted(set(logs), key=_place)
    for log in ordered:
        if not first_block <= log.block_number <= last_block:
            raise LogRefused(_name(log), f"asked for blocks {first_block} to {last_block}")
        if not log.topics or log.topics[0] not in wanted.get(log.address, {}):
            raise LogRefused(_name(log), f"{log.address} has no such event, or was not asked for")
    for one, two in pairwise(ordered):
        if (one.block_number, one.log_index) == (two.block_number, two.log_index):
            raise LogRefused(_name(one), f"there is another one in the same place, of {two.transaction_hash}")
    return ordered


def _times(logs: Iterable[Log], blocks: Mapping[int, Block | None]) -> dict[int, int]:
    """Of the blocks in which logs stand. Raises `LogRefused` where a block is another one than its log says."""
    times: dict[int, int] = {}
    for log in logs:
        block = blocks[log.block_number]
        if block is None or block.hash != log.block_hash:
            found = "missing" if block is None else block.hash
            raise LogRefused(_name(log), f"its block is {found}, by the log it is {log.block_hash}")
        times[block.number] = block.time
    return times


def _decoded(logs: Iterable[Log], wanted: _Wanted) -> tuple[Happened, ...]:
    found: list[Happened] = []
    for log in logs:
        try:
            event = read_log(log, wanted[log.address])
        except BadResult as error:
            raise LogRefused(_name(log), str(error)) from error
        assert event is not None, log
        found.append(Happened(event=event, log=log))
    return tuple(found)


def _wanted(deployment: Deployment, contracts: Mapping[str, tuple[type[Event], ...]]) -> _Wanted:
    return {deployment.address(name): table_of(events) for name, events in contracts.items()}


def _topics(wanted: _Wanted) -> list[bytes]:
    return sorted({topic for events in wanted.values() for topic in events})


def _may_hold(bloom: bytes, wanted: _Wanted) -> bool:
    """Whether a block with this bloom can hold such a log. One in some that can does not."""
    bits = int.from_bytes(bloom, "big")
    return any(
        _is_in(bits, bytes.fromhex(address[2:])) and any(_is_in(bits, topic) for topic in events)
        for address, events in wanted.items()
    )


def _is_in(bloom: int, value: bytes) -> bool:
    """Three bits of 2,048, named by the first three pairs of bytes of the value's Keccak hash."""
    digest = keccak(value)
    return all(bloom >> (int.from_bytes(digest[at : at + 2], "big") % BLOOM_BITS) & 1 for at in (0, 2, 4))


def _place(log: Log) -> tuple[int, int, str]:
    return log.block_number, log.log_index, log.transaction_hash


def _name(log: Log) -> str:
    return f"log {log.log_index} of block {log.block_number}"


def _alone(logs: Sequence[Log], others: Sequence[Log]) -> str:
    only = sorted(set(logs) - set(others), key=_place)
    shown = f", {_name(only[0])} of {only[0].transaction_hash} among them alone" if only else ""
    return f"{len(logs)} logs{shown}"
