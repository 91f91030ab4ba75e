"""The guide for requesters says what the code does: every field, every bound, every event."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from http_network import StartNetwork
from talking_runtime import TalkingRuntime

from parallelix.coordinator.http import limits, openai_bodies, server, sse
from parallelix.coordinator.http.endpoints import NATIVE_EVENTS, endpoints
from parallelix.coordinator.http.openai_bodies import Shape
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.engine.settings import DAY_MS, EngineSettings
from parallelix.protocol import requests

GUIDE = (Path(__file__).parents[3] / "docs" / "requester-guide.md").read_text()
COLUMNS = {"chat": openai_bodies.CHAT, "completions": openai_bodies.COMPLETION, "embeddings": openai_bodies.EMBEDDING}


def rows_of(heading: str) -> list[list[str]]:
    """The cells of the tables between this heading and the next."""
    section = GUIDE.partition(f"{heading}\n")[2].partition("\n##")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def names_in(cell: str) -> set[str]:
    return set(re.findall(r"`(\w+)`", re.sub(r"\([^)]*\)", "", cell)))


@pytest.mark.parametrize(("column", "shape"), COLUMNS.items())
def test_every_field_of_an_openai_shape_is_explained(column: str, shape: Shape[Any]) -> None:
    index = 1 + list(COLUMNS).index(column)
    rows = [row for row in rows_of("### What each field does") if len(row) == 5]
    explained = {name for row in rows if row[index] == "✓" for name in names_in(row[0])}
    assert explained == set(shape.kind.__struct_fields__)


@pytest.mark.parametrize(
    ("column", "unsupported"),
    [
        ("chat", openai_bodies.CHAT_UNSUPPORTED),
        ("completions", openai_bodies.COMPLETION_UNSUPPORTED),
        ("embeddings", openai_bodies.EMBEDDING_UNSUPPORTED),
    ],
)
def test_every_field_that_is_refused_is_named(
    column: str, unsupported: dict[str, openai_bodies.Unsupported]
) -> None:  # fmt: skip
    named = [names_in(row[1]) for row in rows_of("### What each field does") if len(row) == 2 and row[0] == column]
    fields = set(COLUMNS[column].kind.__struct_fields__)
    assert named == [set(unsupported) - fields]


def test_every_option_of_our_own_is_explained() -> None:
    explained = {name for row in rows_of("### What OpenAI has no name for") for name in names_in(row[0])}
    assert explained == set(openai_bodies.ParallelixOptions.__struct_fields__)


def test_the_bounds_are_those_of_the_code() -> None:
    seconds = f"{limits.BODY_SECONDS_MAX:.0f} seconds", f"{server.HEAD_SECONDS_MAX:.0f} seconds"
    (body,) = [row for row in rows_of("## Limits") if row[0] == "body"]
    (head,) = [row for row in rows_of("## Limits") if row[0] == "head"]
    assert f"{requests.REQUEST_BODY_BYTES_MAX // 2**20} MiB" in body[1] and seconds[0] in body[1]
    assert f"{server.HEAD_BYTES_MAX // 2**10} KiB" in head[1] and seconds[1] in head[1]
    defaults = CoordinatorSettings(data_folder="x")
    engine = EngineSettings(chain_id=1)
    assert f"1 to {limits.IDEMPOTENCY_KEY_CHARACTERS_MAX} printable" in GUIDE
    assert f"{engine.open_requests_per_account_max:,} open requests" in GUIDE
    assert f"| {requests.MESSAGES_MAX:,}, 128, {requests.INPUTS_MAX} |" in GUIDE
    assert f"grace of {defaults.client_grace_seconds:.0f} seconds" in GUIDE
    assert f"by default {defaults.deadline_seconds:.0f}" in GUIDE
    assert f"every {sse.KEEP_ALIVE_SECONDS:.0f} seconds" in GUIDE
    assert (engine.idempotency_ms, defaults.retention_seconds) == (DAY_MS, 7 * 86_400)


def test_every_event_is_named() -> None:
    assert len(NATIVE_EVENTS) == 5
    names = ("held", "dispatched", "running", "delta", "attempt.restarted", "completed", "failed", "expired", "audit")
    for name in names:
        assert f"`{name}`" in GUIDE


@pytest.mark.asyncio
async def test_every_call_of_a_requester_is_listed(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network:
        own = [each for each in endpoints(network.coordinator) if each.tag in ("requests", "account")]
    assert len(own) > 8
    assert [each.path for each in own if each.path not in GUIDE] == []
