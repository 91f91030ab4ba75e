"""What calls cost is committed, so that a review sees a change of it, and held to the limits."""

from __future__ import annotations

import re

import pytest

from bench import gas
from bench.gas import Cost

ROW = re.compile(r"\| `(\w+)` \| ([^|]+) \| ([0-9,]+) \| ([0-9,]*) \|")


@pytest.fixture(scope="module")
def measured() -> tuple[list[Cost], dict[str, bool]]:
    return gas.measure_all(fleet=gas.BATCH, accounts=3)


def committed() -> dict[tuple[str, str], tuple[int, int | None]]:
    rows = ROW.findall(gas.TABLE.read_text())
    return {
        (function, case): (int(cost.replace(",", "")), int(limit.replace(",", "")) if limit else None)
        for function, case, cost, limit in rows
    }


@pytest.mark.service
def test_nothing_costs_more_than_its_limit(measured: tuple[list[Cost], dict[str, bool]]) -> None:
    assert [each for each in measured[0] if not each.within] == []


@pytest.mark.service
def test_the_documented_costs_are_those_that_are_measured(measured: tuple[list[Cost], dict[str, bool]]) -> None:
    table = committed()
    for cost in measured[0]:
        if cost.case.startswith("3 accounts"):
            continue
        shown, limit = table[cost.function, cost.case]
        # A timestamp or an address with one more zero byte in it moves a cost by a few units.
        assert cost.gas == pytest.approx(shown, rel=0.002), f"{cost}: run make gas and commit docs/gas.md"
        assert limit == cost.limit


@pytest.mark.service
def test_limits_that_must_break_do(measured: tuple[list[Cost], dict[str, bool]]) -> None:
    assert measured[1] and all(measured[1].values())


def test_every_promised_case_has_its_row() -> None:
    functions = {function for function, _ in committed()}
    assert functions >= {
        "registerNode",
        "requestUnstake",
        "withdrawStake",
        "claim",
        "reportLiveness",
        "deposit",
        "settle",
        "anchorBatch",
    }
    cases = {case for _, case in committed()}
    assert {"1 record", "1,000,000 records", "200 accounts, later", "500 nodes, later change"} <= cases
