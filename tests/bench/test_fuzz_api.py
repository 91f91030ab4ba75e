"""`make fuzz-api` with a few examples for each operation, and every one of its controls."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from bench import brittle_coordinator, fuzz_api, fuzz_hooks

SCOPE = fuzz_api.Scope(examples=4, phases=("fuzzing", "stateful"))


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[fuzz_api.Run, dict[str, bool]]]:
    yield asyncio.run(fuzz_api.measure(SCOPE, tmp_path_factory.mktemp("fuzz")))


@pytest.mark.slow
def test_no_answer_breaks_what_the_document_promises(measured: tuple[fuzz_api.Run, dict[str, bool]]) -> None:
    run, _ = measured
    assert fuzz_api.faults_of(run) == []
    assert run.status_5xx == 0
    assert run.cases >= 4 * run.operations > 60


@pytest.mark.slow
def test_good_cases_reach_a_node(measured: tuple[fuzz_api.Run, dict[str, bool]]) -> None:
    run, _ = measured
    for operation in ("POST /v1/requests", "POST /v1/chat/completions", "POST /v1/completions", "POST /v1/embeddings"):
        assert run.answers[operation] > 0, operation


@pytest.mark.slow
def test_every_fault_made_on_purpose_is_found(measured: tuple[fuzz_api.Run, dict[str, bool]]) -> None:
    _, controls = measured
    assert controls == dict.fromkeys(brittle_coordinator.FAULTS, True)


def test_a_run_that_saw_nothing_or_ended_badly_has_not_passed() -> None:
    assert fuzz_api.faults_of(fuzz_api.Run())
    assert fuzz_api.faults_of(fuzz_api.Run(cases=1, exit_code=2, output="crashed"))
    failure = fuzz_api.Failure(check="not_a_server_error", operation="GET /x", title="t", message="m")
    run = fuzz_api.Run(cases=1, failures=[failure])
    run.statuses[500] = 1
    assert len(fuzz_api.faults_of(run)) == 2


def test_a_good_case_is_made_possible_and_stays_what_it_is() -> None:
    body = {"model": "x", "prompt": "a", "messages": [{"role": "tool"}], "max_tokens": 2**20, "seed": 1}
    fuzz_hooks.make_possible("/v1/requests", body)
    assert body["messages"] == [{"role": "user", "content": "Hello"}]
    assert "prompt" not in body
    assert body["seed"] == 1
    assert 1 <= int(str(body["max_tokens"])) <= fuzz_hooks.TOKENS_MAX
