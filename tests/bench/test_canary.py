"""`make canary` without the real model, and with every control."""

from __future__ import annotations

import asyncio
import gzip
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import canary
from bench.haystack import Haystack, Needle

CANARY = b"canary0for2the3haystack"


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[canary.Sweep]:
    yield asyncio.run(canary.sweep(tmp_path_factory.mktemp("canary") / "network", real_model=False))


@pytest.mark.slow
def test_nothing_of_a_prompt_is_kept_no_node_is_named_and_no_secret_sent(found: canary.Sweep) -> None:
    assert [hit for haystack in found.haystacks for hit in haystack.hits] == []
    assert set(found.outcomes) == {
        "completed", "failed", "expired", "cancelled", "rejected", "refused", "malformed"
    }  # fmt: skip
    assert set(found.surfaces) >= {"database", "write-ahead log", "coordinator's log", "node's log", "sent by a node"}
    assert all(haystack.needles and haystack.bytes_scanned > 100_000 for haystack in found.haystacks)


@pytest.mark.slow
def test_a_canary_is_found_wherever_it_is_planted(found: canary.Sweep, tmp_path: Path) -> None:
    controls = canary.planted_controls(found, tmp_path / "planted")
    assert [name for name, caught in controls.items() if not caught] == []


@pytest.mark.slow
def test_a_network_that_leaks_is_caught(tmp_path: Path) -> None:
    controls = asyncio.run(canary.leaky_controls(tmp_path / "leaky"))
    assert [name for name, caught in controls.items() if not caught] == []


@pytest.mark.parametrize("encoding", sorted(canary.ENCODINGS))
def test_the_search_sees_through(encoding: str) -> None:
    hidden = canary.ENCODINGS[encoding](CANARY)
    found = Haystack([Needle("canary", CANARY)]).search("here", secrets.token_bytes(999) + hidden + b"after")
    assert {hit.needle for hit in found} == {"canary"}, encoding


def test_the_search_unpacks_what_is_packed_twice() -> None:
    packed = gzip.compress(b"outer " + gzip.compress(b"inner " + CANARY))
    assert Haystack([Needle("canary", CANARY)]).search("here", b"before" + packed)


def test_the_search_finds_nothing_in_noise() -> None:
    haystack = Haystack([Needle(str(number), secrets.token_bytes(24), number=True) for number in range(50)])
    assert haystack.search("noise", secrets.token_bytes(1_000_000)) == []
    assert haystack.bytes_scanned == 1_000_000
