from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import boa
import pytest
from every_call import CALLS, STREAM_CALL, Call, Stage, changing_functions, deploy_stage, viewing_functions
from role_matrix import VIEWS, answers, check_call, stream_call


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with boa.env.anchor():
        yield deploy_stage()


def test_the_table_names_every_function_that_changes_state(stage: Stage) -> None:
    listed = sorted([*map(str, CALLS), STREAM_CALL])
    assert listed == sorted(
        f"{name}.{function}"
        for name, contract in stage.network.contracts()
        for function in changing_functions(contract)
    )


def test_the_table_names_every_view(stage: Stage) -> None:
    assert {name: set(views) for name, views in VIEWS.items()} == {
        name: viewing_functions(contract) for name, contract in stage.network.contracts()
    }


@pytest.mark.parametrize("call", CALLS, ids=str)
def test_invariant_i13_who_may_call_it_can_and_nobody_else(stage: Stage, call: Call) -> None:
    check_call(stage, call)


def test_invariant_i13_the_owner_binds_the_stream_and_nobody_else(stage: Stage, lockup: Any) -> None:
    check_call(stage, stream_call(lockup))


@pytest.mark.parametrize("contract", VIEWS)
def test_invariant_i13_every_view_answers_everybody_alike(stage: Stage, contract: str) -> None:
    for view in VIEWS[contract]:
        first, *others = answers(stage, contract, view)
        assert others == [first] * len(others), view
