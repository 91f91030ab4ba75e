"""The daily table of rewards is what the contract says, to the wei, at any block and at every midnight."""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import AsyncIterator, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import typer.main
from chain_scene import Ethereum
from operators_scene import DAY, HOUR, Operators, Seen

from parallelix.chain import cli, deployment_file
from parallelix.chain.abi import Event, read_log, table_of
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import BadArgument, BadResult
from parallelix.chain.rewards_replay import EVENTS, Replay, Terms
from parallelix.chain.rewards_table import Paid, RewardsTable, Row, Sum, read_table
from parallelix.chain.rpc import Rpc, connected
from parallelix.client.cli import run

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def chain(shared_ethereum: Ethereum, shared_deployment: Path) -> Iterator[Ethereum]:
    with shared_ethereum.undone():
        yield shared_ethereum


@pytest.fixture(scope="module")
def deployment(shared_deployment: Path) -> Deployment:
    found = deployment_file.read(shared_deployment)
    assert found is not None
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def endpoint(chain: Ethereum) -> AsyncIterator[Rpc]:
    async with connected(chain.url) as rpc:
        yield rpc


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def operators(chain: Ethereum, endpoint: Rpc, deployment: Deployment) -> Operators:
    """Four nodes after some days, with everything that can happen to them."""
    made = Operators(chain, endpoint, deployment)
    await made.stake()
    await made.live(random.Random(5), steps=40)
    return made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(operators: Operators, endpoint: Rpc, deployment: Deployment) -> RewardsTable:
    return await read_table(endpoint, deployment, check=True)


def unclaimed(table: RewardsTable) -> dict[int, int]:
    return {int(each.node_id): int(each.unclaimed_wei) for each in table.totals}


def without_nothing(earned: dict[int, int]) -> dict[int, int]:
    return {node: wei for node, wei in earned.items() if wei}


async def test_every_checkpoint_of_the_days_is_equal_to_the_contract_to_the_wei(
    operators: Operators, endpoint: Rpc, deployment: Deployment
) -> None:
    paid = [seen for seen in operators.checkpoints if any(seen.earned.values())]
    for seen in random.Random(1).sample(paid, 12):
        found = await read_table(endpoint, deployment, block=seen.block)
        assert without_nothing(unclaimed(found)) == without_nothing(seen.earned)
        claimed = {int(each.node_id): int(each.claimed_wei) for each in found.totals}
        assert without_nothing(claimed) == seen.claimed
        assert (found.block, found.time) == (seen.block, seen.time)


async def test_what_it_says_of_itself_is_checked_against_the_contract(table: RewardsTable) -> None:
    assert table.holds and len(table.totals) == 4
    assert all(each.on_chain_wei == each.unclaimed_wei for each in table.totals)
    assert all(int(each.earned_wei) == int(each.claimed_wei) + int(each.unclaimed_wei) for each in table.totals)


async def test_the_days_of_a_node_add_up_to_its_total_without_a_remainder(table: RewardsTable) -> None:
    for each in table.totals:
        rows = [row for row in table.rows if row.node_id == each.node_id]
        assert sum(int(row.earned_wei) for row in rows) == int(each.earned_wei) > 0
        assert sum(int(row.claimed_wei) for row in rows) == int(each.claimed_wei)


async def test_at_midnight_the_table_is_what_the_contract_said_in_that_second(
    operators: Operators, table: RewardsTable
) -> None:
    """No transaction was sent then: the day was split between two checkpoints."""
    days = {row.day for row in table.days}
    compared = 0
    for seen in operators.midnights:
        assert str(date.fromordinal(date(1970, 1, 1).toordinal() + seen.time // DAY - 1)) in days
        compared += at_the_end_of_the_day(seen, table)
    assert compared > 4 * 4


def at_the_end_of_the_day(seen: Seen, table: RewardsTable) -> int:
    ended = str(date.fromordinal(date(1970, 1, 1).toordinal() + seen.time // DAY - 1))
    for node, earned in seen.earned.items():
        rows = [row for row in table.rows if row.node_id == str(node) and row.day <= ended]
        earned_before = sum(int(row.earned_wei) for row in rows)
        assert earned_before == earned + seen.claimed.get(node, 0), (node, ended)
    return len(seen.earned)


async def test_shares_and_times_are_those_of_the_contracts_own_changes(table: RewardsTable) -> None:
    for paid in table.days:
        rows = [row for row in table.rows if row.day == paid.day]
        assert sum(float(row.share_percent) for row in rows) == pytest.approx(
            100 if paid.paid_seconds else 0, abs=0.001
        )
        for row in rows:
            assert 0 <= row.paid_seconds <= row.online_seconds <= DAY
            assert row.paid_seconds <= paid.paid_seconds <= DAY
        earned = sum(int(row.earned_wei) for row in rows)
        together = int(paid.bootstrap_wei) + int(paid.income_wei)
        assert together - 1000 <= earned <= together + 1000, "what is rounded is below a wei for each event"
        assert paid.lag_seconds >= 0


async def test_a_gap_in_the_reports_is_online_and_unpaid_and_told_as_lag(table: RewardsTable) -> None:
    gaps = [row for row in table.rows if row.online_seconds > row.paid_seconds]
    assert gaps, "reports were late by more than six hours now and then"
    assert max(paid.lag_seconds for paid in table.days) > 6 * HOUR


async def test_one_node_and_one_day_are_the_same_rows(
    operators: Operators, endpoint: Rpc, deployment: Deployment, table: RewardsTable
) -> None:
    node, day = operators.nodes[0], table.days[1].day
    alone = await read_table(endpoint, deployment, node_id=node, day=date.fromisoformat(day))
    assert alone.rows == tuple(row for row in table.rows if (row.node_id, row.day) == (str(node), day))
    assert [each.node_id for each in alone.totals] == [str(node)]
    assert [paid.day for paid in alone.days] == [day]


async def test_before_anybody_was_paid_the_table_is_empty(endpoint: Rpc, deployment: Deployment) -> None:
    empty = await read_table(endpoint, deployment, block=deployment.first_block)
    assert (empty.rows, empty.totals, empty.days) == ((), (), ())


async def test_a_block_that_is_not_there_yet_is_refused(endpoint: Rpc, deployment: Deployment) -> None:
    with pytest.raises(BadArgument, match=r"block: \d+ is not there yet"):
        await read_table(endpoint, deployment, block=10**9)


# --- Events that are missing


async def blocks_of(rpc: Rpc, deployment: Deployment) -> list[tuple[int, int, list[Event]]]:
    names = table_of(EVENTS)
    address = deployment.address("OperatorStakeRewardsV2")
    logs = await rpc.logs(
        addresses=[address],
        topics=list(names),
        first_block=deployment.first_block,
        last_block=await rpc.block_number(),
    )
    blocks: dict[int, list[Event]] = {}
    for log in logs:
        event = read_log(log, names)
        assert event is not None
        blocks.setdefault(log.block_number, []).append(event)
    return [(number, await rpc.block_time(number), events) for number, events in blocks.items()]


def replayed(deployment: Deployment, blocks: list[tuple[int, int, list[Event]]]) -> Replay:
    given = deployment.parameters
    terms = Terms(
        bootstrap_wei=int(given.bootstrap_amount),
        bootstrap_seconds=given.bootstrap_seconds,
        stale_seconds=given.stale_seconds,
    )
    replay = Replay(terms)
    for number, time, events in blocks:
        replay.block(number, time, events)
    replay.finish()
    return replay


@pytest.mark.parametrize(
    "missing", ["RewardsDistributed", "RewardsFunded", "RewardsClaimed", "NodeOnline", "NodeOffline"]
)
async def test_an_endpoint_that_leaves_an_event_out_is_found_out(
    operators: Operators, endpoint: Rpc, deployment: Deployment, missing: str
) -> None:
    blocks = await blocks_of(endpoint, deployment)
    places = [
        (at, index)
        for at, (_, _, events) in enumerate(blocks[:-8])
        for index, event in enumerate(events)
        if type(event).__name__ == missing
    ]
    assert len(places) > 1
    for at, index in places:
        number, time, events = blocks[at]
        less = [*blocks[:at], (number, time, [*events[:index], *events[index + 1 :]]), *blocks[at + 1 :]]
        with pytest.raises(BadResult, match="left an event out"):
            replayed(deployment, less)


# --- The command


async def test_the_command_prints_every_node_of_every_day_and_what_the_words_mean(
    operators: Operators,
    chain: Ethereum,
    shared_deployment: Path,
    table: RewardsTable,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = ["chain", "rewards", "--deployment", str(shared_deployment), "--rpc", chain.url]
    code, answer = await command(capsys, *given, "--check", "--json")
    assert code == 0
    assert json.loads(answer)["rows"] == [
        {name: getattr(row, name) for name in row.__struct_fields__} for row in table.rows
    ]
    monkeypatch.setenv("COLUMNS", "80")
    code, shown = await command(capsys, *given, "--check")
    assert code == 0 and max(map(len, shown.splitlines())) <= 80
    assert shown.count("so says the contract") == 4 and shown.count("since the beginning") == 1
    assert all(paid.day in shown for paid in table.days)
    for word in ("online", "paid", "weight", "share", "earned", "claimed", "unclaimed", "lag"):
        assert f"· {word} " in shown


async def test_the_page_names_every_option_and_every_field() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "rewards.md").read_text()
    command: Any = typer.main.get_command(cli.app)
    options = {option for each in command.commands["rewards"].params for option in each.opts}
    assert options == set(re.findall(r"`(--[a-z]+)`", page)) | {"--deployment", "--rpc"}
    for kind in (RewardsTable, Row, Paid, Sum):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in page, name


async def test_the_command_refuses_what_is_no_day(
    chain: Ethereum, shared_deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["chain", "rewards", "--deployment", str(shared_deployment), "--rpc", chain.url, "--day", "yesterday"]
    code, shown = await command(capsys, *given)
    assert code == 1 and "chain.bad_argument: day: 'yesterday' is no date; write it as 2026-11-21" in shown


async def command(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    code = await asyncio.to_thread(run, list(arguments))
    printed = capsys.readouterr()
    return code, printed.out + printed.err
