"""Exported records against what a chain keeps: nothing can be edited, dropped, added or moved unseen, and nobody is
accused who left them alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest
from anchoring_scene import anchor, chain_of, retold
from chain_scene import Ethereum

from bench.record_edits import EVERY_EDIT, Export, cut, exported_anew, linked_anew, record_places
from parallelix.chain import anchored, deployment_file
from parallelix.chain.anchored import Anchored
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import BadArgument, BadResult, WrongChain
from parallelix.chain.records_audit import FINDINGS_MAX, Audit, audit
from parallelix.chain.rpc import Rpc, connected
from parallelix.protocol.record_export import Header, lines_of, written
from parallelix.protocol.records import Batch, ExecutionRecord, Record

SIZES = (60, 1, 45, 80, 30, 24)
ANCHORED = sum(SIZES)
NEWER = 9
EDITS = 1_000


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A chain with batches on it, the records that made them, and some newer ones."""

    deployment: Deployment
    on_chain: Anchored
    records: tuple[Record, ...]

    @property
    def header(self) -> Header:
        return Header(chain_id=self.on_chain.chain_id, anchor=self.on_chain.anchor)

    @property
    def batches(self) -> list[Batch]:
        return [each.batch for each in self.on_chain.batches]

    @property
    def whole(self) -> Export:
        return Export(header=self.header, batches=tuple(self.batches), records=self.records)

    def export(self) -> list[bytes]:
        return self.whole.lines()

    def audited(self, lines: Sequence[bytes]) -> Audit:
        return audit(lines, self.batches, chain_id=self.on_chain.chain_id, anchor=self.on_chain.anchor)


@pytest.fixture(scope="module")
def scene(shared_ethereum: Ethereum, shared_deployment: Path) -> Iterator[Scene]:
    """Anchored once, in a thread with a loop of its own; every test of this module only looks."""
    deployment = deployment_file.read(shared_deployment)
    assert deployment is not None
    records = chain_of(ANCHORED + NEWER)

    async def made() -> Anchored:
        async with connected(shared_ethereum.url) as rpc:
            await anchor(shared_ethereum, rpc, deployment, cut(records, SIZES))
            return await anchored.read_anchored(rpc, deployment, confirmations=0)

    with shared_ethereum.undone():
        with ThreadPoolExecutor(1) as thread:
            on_chain = thread.submit(asyncio.run, made()).result()
        yield Scene(deployment=deployment, on_chain=on_chain, records=tuple(records))


# Untouched


def test_what_was_anchored_is_what_the_chain_says(scene: Scene) -> None:
    assert scene.batches == cut(scene.records, SIZES)
    assert all(each.block <= scene.on_chain.block for each in scene.on_chain.batches)
    assert len({each.transaction_hash for each in scene.on_chain.batches}) == len(SIZES)


def test_an_untouched_export_holds_and_says_how_many_records_no_batch_covers(scene: Scene) -> None:
    found = scene.audited(scene.export())

    assert (found.findings, found.records, found.covered, found.uncovered) == ((), ANCHORED + NEWER, ANCHORED, NEWER)
    assert (found.batches, found.anchored, found.holds) == (len(SIZES), ANCHORED, True)


@pytest.mark.parametrize("confirmed", range(len(SIZES) + 1))
def test_no_untouched_export_is_accused_whatever_the_chain_has_confirmed_by_then(scene: Scene, confirmed: int) -> None:
    """An export from before a batch, as well as one from before its confirmation, is as good as a newer one."""
    on_chain = scene.batches[:confirmed]
    covered = sum(SIZES[:confirmed])
    for claimed in range(len(SIZES) + 1):
        found = audit(lines_of(scene.header, scene.batches[:claimed], scene.records), on_chain)

        assert found.findings == ()
        assert (found.covered, found.uncovered) == (covered, len(scene.records) - covered)


def test_an_export_of_nothing_is_right_as_long_as_nothing_is_anchored(scene: Scene) -> None:
    assert audit(lines_of(scene.header, [], []), []).holds
    assert [each.kind for each in audit([], []).findings] == ["header"]
    (missing,) = scene.audited([*lines_of(scene.header, [], [])]).findings
    assert (missing.kind, missing.first, missing.last) == ("missing", 0, ANCHORED - 1)


# Edited, at random


def test_a_thousand_random_edits_are_all_noticed_and_the_records_named(scene: Scene) -> None:
    chance = random.Random(20261121)
    lines = scene.export()
    for number in range(EDITS):
        edit = EVERY_EDIT[number % len(EVERY_EDIT)]
        edited, (first, last), exact = edit(chance, scene.whole, [*lines])

        assert edited != lines, (number, edit.__name__)
        found = scene.audited(edited)
        named = [(each.first, each.last) for each in found.findings]
        assert not found.holds, (number, edit.__name__, first, last)
        if exact:
            assert (first, first) in named, (number, edit.__name__, first, found.findings)
        else:
            assert touches(named, first, last), (number, edit.__name__, (first, last), found.findings)


def touches(named: Sequence[tuple[int | None, int | None]], first: int, last: int) -> bool:
    return any(begin is not None and end is not None and begin <= last and first <= end for begin, end in named)


# What is said


def test_an_altered_record_is_named_and_no_other(scene: Scene) -> None:
    lines = scene.export()
    at = record_places(lines, scene.whole)[100]
    lines[at] = lines[at].replace(b'"completion_tokens":120', b'"completion_tokens":20')

    found = scene.audited(lines)

    assert [each.message for each in found.findings] == ["record 100: altered; another was anchored"]
    assert (found.findings[0].batch, found.covered) == (3, ANCHORED - 1)


def test_an_altered_verdict_is_named_and_no_other(scene: Scene) -> None:
    lines = scene.export()
    at = record_places(lines, scene.whole)[103]
    lines[at] = lines[at].replace(b'"verdict":"agree"', b'"verdict":"disagree"')

    found = scene.audited(lines)

    assert [each.message for each in found.findings] == ["record 103: altered; another was anchored"]
    assert (found.findings[0].batch, found.covered) == (3, ANCHORED - 1)


def test_an_edit_with_all_hashes_made_anew_is_narrowed_to_its_batch(scene: Scene) -> None:
    records = [*scene.records]
    altered = records[100]
    assert isinstance(altered, ExecutionRecord)
    records[100] = msgspec.structs.replace(altered, rate=5)

    found = scene.audited(exported_anew(scene.whole, linked_anew(records, 101), honest_batches=True))

    altered_spans = [(each.first, each.last) for each in found.findings if each.kind == "altered"]
    assert altered_spans == [(61, 105), (106, 185), (186, 215), (216, 239)]
    assert found.covered == 61


def test_two_records_dropped_beside_each_other_are_both_named(scene: Scene) -> None:
    lines = scene.export()
    at = record_places(lines, scene.whole)[100]

    found = scene.audited([*lines[:at], *lines[at + 2 :]])

    assert found.findings[0].message == "records 100 to 101: missing"
    assert found.findings[1].message == (
        "records 61 to 99: altered, or at least one of them: together they are not what batch 3 anchored"
    )


def test_records_that_no_batch_covers_must_at_least_follow_from_one_another(scene: Scene) -> None:
    lines = scene.export()
    edited = [*lines[:-3], lines[-3].replace(b'"rate":0', b'"rate":1'), *lines[-2:]]
    last_edited = [*lines[:-1], lines[-1].replace(b'"rate":0', b'"rate":1')]

    assert [each.kind for each in scene.audited(edited).findings] == ["unlinked"]
    assert [each.first for each in scene.audited([*lines[:-3], *lines[-2:]]).findings] == [ANCHORED + NEWER - 2]
    # Nothing follows the last record, so nobody can tell; it is said not to be covered.
    assert scene.audited(last_edited).holds
    assert scene.audited(last_edited).uncovered == NEWER


def test_an_export_of_another_chain_or_contract_is_told(scene: Scene) -> None:
    other = Header(chain_id=1, anchor="0x" + "11" * 20)

    found = scene.audited([written(other), *scene.export()[1:]])

    assert [each.kind for each in found.findings] == ["header", "header"]
    assert audit([written(other), *scene.export()[1:]], scene.batches).holds


def test_a_batch_that_contradicts_itself_on_the_chain_is_the_validators_doing(scene: Scene) -> None:
    wrong = msgspec.structs.replace(scene.batches[1], merkle_root="0x" + "ab" * 32)
    on_chain = [scene.batches[0], wrong, *scene.batches[2:]]

    found = audit(lines_of(scene.header, on_chain, scene.records), on_chain)

    assert [(each.kind, each.first, each.last, each.batch) for each in found.findings] == [("anchor", 60, 60, 2)]


def test_a_file_of_something_else_is_refused_in_a_hundred_findings_at_most(scene: Scene) -> None:
    found = scene.audited([b"nothing of ours\n"] * 5_000)

    assert (len(found.findings), found.found, found.records) == (FINDINGS_MAX, 5_001, 0)


# Read from the chain


async def test_only_batches_that_are_deep_enough_are_read(scene: Scene, rpc: Rpc) -> None:
    newest = scene.on_chain.batches[-1].block
    head = await rpc.block_number()

    shallow = await anchored.read_anchored(rpc, scene.deployment, confirmations=head - newest + 1)
    before_any = await anchored.read_anchored(rpc, scene.deployment, confirmations=head)
    at_that_time = await anchored.read_anchored(rpc, scene.deployment, confirmations=0, block=newest - 1)

    assert shallow.batches == at_that_time.batches == scene.on_chain.batches[:-1]
    assert before_any.batches == ()
    with pytest.raises(BadArgument, match=f"{newest} is not .* blocks deep yet"):
        await anchored.read_anchored(rpc, scene.deployment, confirmations=head - newest + 1, block=newest)


@pytest.mark.parametrize("left_out", [0, 2, -1])
async def test_an_endpoint_that_leaves_a_batch_out_is_not_believed(
    scene: Scene, ethereum: Ethereum, left_out: int
) -> None:
    def without_one(question: Any, told: Any) -> Any:
        if question["method"] == "eth_getLogs":
            del told["result"][left_out]
        return told

    async with retold(ethereum.url, without_one) as url, connected(url) as lying:
        with pytest.raises(BadResult, match="BatchAnchored"):
            await anchored.read_anchored(lying, scene.deployment, confirmations=0)


async def test_an_endpoint_of_another_chain_is_not_asked(scene: Scene, rpc: Rpc) -> None:
    elsewhere = msgspec.structs.replace(scene.deployment, chain_id=1)

    with pytest.raises(WrongChain, match="serves chain 31337, the deployment is on chain 1"):
        await anchored.read_anchored(rpc, elsewhere, confirmations=0)


async def test_an_endpoint_that_takes_only_short_spans_is_asked_for_those(scene: Scene, ethereum: Ethereum) -> None:
    spans: list[int] = []

    def short(question: Any, told: Any) -> Any:
        if question["method"] != "eth_getLogs":
            return told
        wanted = question["params"][0]
        spans.append(int(wanted["toBlock"], 16) - int(wanted["fromBlock"], 16) + 1)
        error = {"code": -32005, "message": "query exceeds max block range"}
        return told if spans[-1] <= 20 else {"jsonrpc": "2.0", "id": question["id"], "error": error}

    async with retold(ethereum.url, short) as url, connected(url) as limited:
        found = await anchored.read_anchored(limited, scene.deployment, confirmations=0)

    assert found.batches == scene.on_chain.batches
    assert max(spans) > 20 >= spans[-1]
