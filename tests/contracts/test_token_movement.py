from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from every_call import ACTIVE_NODE, CALLS, HOUR_SECONDS, STREAM_CALL, Call, Stage, changing_functions, deploy_stage
from network import EMPTY_ROOT
from role_matrix import opened_stream
from token_movement import MOVE_NOTHING, MOVES, PULL_FIRST, Stream, balances, check_movements


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with boa.env.anchor():
        yield deploy_stage()


@pytest.fixture
def stream(stage: Stage, lockup: Any) -> Stream:
    """Bound, and running for an hour in which the first node was online."""
    address, stream_id = opened_stream(stage, lockup)
    stage.network.rewards.bindStream(address, stream_id, sender=stage.accounts["owner"])
    changes = [(ACTIVE_NODE, True, 0)]
    stage.network.rewards.reportLiveness(0, EMPTY_ROOT, changes, sender=stage.accounts["liveness"])
    boa.env.time_travel(seconds=HOUR_SECONDS)
    return Stream(lockup=lockup, stream_id=stream_id)


def test_the_table_says_of_every_function_what_it_moves(stage: Stage) -> None:
    listed = [*MOVES, *MOVE_NOTHING, STREAM_CALL]
    assert sorted(listed) == sorted(
        f"{name}.{function}"
        for name, contract in stage.network.contracts()
        for function in changing_functions(contract)
    )


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_invariant_i14_a_function_moves_what_the_table_says_and_no_more(stage: Stage, call: Call) -> None:
    check_movements(stage, call)


def test_invariant_i14_a_stream_adds_what_it_has_released_and_nothing_else(stage: Stage, stream: Stream) -> None:
    assert stream.released_wei() > 0
    for call in CALLS:
        check_movements(stage, call, stream=stream)
    assert {str(call) for call in CALLS} > PULL_FIRST


def test_invariant_i14_binding_a_stream_that_runs_brings_in_what_it_has_released(stage: Stage, lockup: Any) -> None:
    address, stream_id = opened_stream(stage, lockup)
    boa.env.time_travel(seconds=HOUR_SECONDS)
    names = stage.names | {lockup.address: "Sablier"}
    released_wei = Stream(lockup=lockup, stream_id=stream_id).released_wei()
    before = balances(stage, names)

    stage.network.rewards.bindStream(address, stream_id, sender=stage.accounts["owner"])

    moved_wei = {name: wei - before[name] for name, wei in balances(stage, names).items() if wei != before[name]}
    assert moved_wei == {"Sablier": -released_wei, "OperatorStakeRewardsV2": released_wei}
