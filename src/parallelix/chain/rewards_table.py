"""`parallelix chain rewards`: the daily table of what each node earned, read from an endpoint.

The table is as of the contract's last checkpoint before the block that was asked for: from then on its events tell
nothing yet. At that block it equals the contract's own `earned`, to the wei.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, date, datetime, timedelta

import msgspec

from parallelix.chain.abi import Address, Log, read_log, table_of
from parallelix.chain.asking import answers
from parallelix.chain.bindings.operator_stake_rewards import OperatorStakeRewardsV2Views
from parallelix.chain.deployment import require_chain
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import BadArgument, RpcRefused
from parallelix.chain.plan import REWARDS
from parallelix.chain.rewards_replay import EVENTS, NodeDay, PoolDay, Replay, Terms, Total
from parallelix.chain.rpc import Rpc
from parallelix.chain.watcher import checked

SPAN_BLOCKS_MAX = 2_000
"""Seven hours of Ethereum, in which there are some 40 reports. Endpoints that allow less say so, and are asked for
less."""
EPOCH = date(1970, 1, 1)
NAMES = table_of(EVENTS)


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One node on one UTC day. Amounts are wei in decimal; `weight` is wei of stake × tenths, in decimal.

    `share_percent` is its part of all weight that was paid on that day, over time.
    """

    day: str
    node_id: str
    weight: str
    online_seconds: int
    paid_seconds: int
    share_percent: str
    earned_wei: str
    claimed_wei: str
    unclaimed_wei: str


class Paid(msgspec.Struct, frozen=True, kw_only=True):
    """What all nodes together were paid on one UTC day, in wei in decimal, in so many seconds. `lag_seconds` is the
    longest time that a change could have waited for its report."""

    day: str
    bootstrap_wei: str
    income_wei: str
    paid_seconds: int
    reports: int
    lag_seconds: int


class Sum(msgspec.Struct, frozen=True, kw_only=True):
    """One node since the beginning, in wei in decimal. `on_chain_wei` is the contract's own `earned` at that block,
    which `unclaimed_wei` must be; null where it was not asked."""

    node_id: str
    earned_wei: str
    claimed_wei: str
    unclaimed_wei: str
    earning: bool
    on_chain_wei: str | None = None


class RewardsTable(msgspec.Struct, frozen=True, kw_only=True):
    """As of `block`, the contract's last checkpoint, at `time` (Unix seconds). All empty before the first one."""

    chain_id: int
    rewards: Address
    block: int
    time: int
    rows: tuple[Row, ...]
    days: tuple[Paid, ...]
    totals: tuple[Sum, ...]

    @property
    def holds(self) -> bool:
        """Whether all that the contract was asked is as here."""
        return all(each.on_chain_wei in (None, each.unclaimed_wei) for each in self.totals)


async def read_table(
    rpc: Rpc,
    deployment: Deployment,
    *,
    block: int | None = None,
    node_id: int | None = None,
    day: date | None = None,
    check: bool = False,
) -> RewardsTable:
    """The table up to `block`, the newest by default; of one node, or of one UTC day, where they are given.

    `check` asks the contract for each node's `earned` at the table's block, which takes an endpoint that still has the
    state of it. Raises `WrongChain`, `BadArgument` for a block that is not there yet, and `BadResult` for events that
    cannot be all that there were.
    """
    await require_chain(rpc, deployment)
    head = await rpc.block_number()
    if block is not None and block > head:
        raise BadArgument("block", f"{block} is not there yet; the newest is {head}")
    address = deployment.address(REWARDS)
    replay = Replay(_terms(deployment), node_id=node_id)
    async for logs in _spans(rpc, address, deployment.first_block, head if block is None else block):
        await _replay(rpc, replay, logs)
    replay.finish()
    found = replay.totals()
    on_chain: list[int | None] = [None] * len(found)
    if check and found:
        views = OperatorStakeRewardsV2Views(rpc, address, block=replay.last_block)
        on_chain = list(await answers([lambda each=each: views.earned(each.node_id) for each in found]))
    return RewardsTable(
        chain_id=deployment.chain_id,
        rewards=address,
        block=max(0, replay.last_block),
        time=replay.last_time,
        rows=_rows(replay, day),
        days=tuple(_paid(each) for each in replay.pool_days if day in (None, _date(each.day))),
        totals=tuple(_sum(each, earned) for each, earned in zip(found, on_chain, strict=True)),
    )


def _terms(deployment: Deployment) -> Terms:
    given = deployment.parameters
    return Terms(
        bootstrap_wei=int(given.bootstrap_amount),
        bootstrap_seconds=given.bootstrap_seconds,
        stale_seconds=given.stale_seconds,
    )


async def _spans(rpc: Rpc, address: Address, first: int, last: int) -> AsyncGenerator[list[Log]]:
    """The contract's logs, in as large steps as the endpoint takes."""
    span = SPAN_BLOCKS_MAX
    while first <= last:
        until = min(last, first + span - 1)
        try:
            logs = await rpc.logs(addresses=[address], topics=sorted(NAMES), first_block=first, last_block=until)
        except RpcRefused:
            if span == 1:
                raise
            span = max(1, span // 2)
            continue
        yield checked(logs, {address: NAMES}, first_block=first, last_block=until)
        first = until + 1


async def _replay(rpc: Rpc, replay: Replay, logs: list[Log]) -> None:
    blocks: dict[int, list[Log]] = {}
    for log in logs:
        blocks.setdefault(log.block_number, []).append(log)
    times = await answers([lambda number=number: rpc.block_time(number) for number in blocks])
    for (number, in_block), time in zip(blocks.items(), times, strict=True):
        events = [read_log(log, NAMES) for log in in_block]
        replay.block(number, time, [event for event in events if event is not None])


def _rows(replay: Replay, day: date | None) -> tuple[Row, ...]:
    pools = {each.day: each for each in replay.pool_days}
    return tuple(_row(each, pools[each.day]) for each in replay.node_days if day in (None, _date(each.day)))


def _row(each: NodeDay, pool: PoolDay) -> Row:
    return Row(
        day=str(_date(each.day)),
        node_id=str(each.node_id),
        weight=str(each.weight),
        online_seconds=each.online_seconds,
        paid_seconds=each.paid_seconds,
        share_percent=_percent(each.weight_seconds, pool.weight_seconds),
        earned_wei=str(each.earned_wei),
        claimed_wei=str(each.claimed_wei),
        unclaimed_wei=str(each.unclaimed_wei),
    )


def _paid(each: PoolDay) -> Paid:
    return Paid(
        day=str(_date(each.day)),
        bootstrap_wei=str(each.bootstrap_wei),
        income_wei=str(each.income_wei),
        paid_seconds=each.paid_seconds,
        reports=each.reports,
        lag_seconds=each.lag_seconds,
    )


def _sum(each: Total, on_chain_wei: int | None) -> Sum:
    return Sum(
        node_id=str(each.node_id),
        earned_wei=str(each.earned_wei),
        claimed_wei=str(each.claimed_wei),
        unclaimed_wei=str(each.unclaimed_wei),
        earning=each.earning,
        on_chain_wei=None if on_chain_wei is None else str(on_chain_wei),
    )


def _date(day: int) -> date:
    return EPOCH + timedelta(days=day)


def _percent(part: int, whole: int) -> str:
    """To four places, rounded down."""
    millionths = part * 1_000_000 // whole if whole else 0
    return f"{millionths // 10_000}.{millionths % 10_000:04d}"


def moment(unix_seconds: int) -> str:
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def parse_day(text: str) -> date:
    """Raises `BadArgument` for what is no date."""
    try:
        return datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError as error:
        raise BadArgument("day", f"{text[:40]!r} is no date; write it as 2026-11-21") from error
