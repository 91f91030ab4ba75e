"""Exported records against what a chain keeps: nothing can be edited, dropped, added or moved unseen, and nobody is
accused who left them alone."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from anchoring_scene import anchor, chain_of, cut, retold
from chain_scene import Ethereum

from parallelix.chain import anchored, deployment_file
from parallelix.chain.anchored import Anchored
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import BadArgument, BadResult, WrongChain
from parallelix.chain.records_audit import FINDINGS_MAX, Audit, audit
from parallelix.chain.rpc import Rpc, connected
from parallelix.protocol.record_export import Header, lines_of, read_line, written
from parallelix.protocol.records import Batch, ExecutionRecord, record_hash

SIZES = (60, 1, 45, 80, 30, 24)
ANCHORED = sum(SIZES)
NEWER = 9
EDITS = 1_000


@dataclass(frozen=True, kw_only=True)
class Scene:
    """A chain with batches on it, the records that made them, and some newer ones."""

    deployment: Deployment
    on_chain: Anchored
    records: tuple[ExecutionRecord, ...]

    @property
    def header(self) -> Header:
        return Header(chain_id=self.on_chain.chain_id, anchor=self.on_chain.anchor)

    @property
    def batches(self) -> list[Batch]:
        return [each.batch for each in self.on_chain.batches]

    def export(self) -> list[bytes]:
        return [*lines_of(self.header, self.batches, self.records)]

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

Lines: TypeAlias = "list[bytes]"
Span: TypeAlias = "tuple[int, int]"
Edit: TypeAlias = "Callable[[random.Random, Scene, Lines], tuple[Lines, Span, bool]]"
"""Gives the edited lines, the records of which one at least has to be named, and whether that has to be exact."""


def record_places(lines: Lines, *, last: int = ANCHORED - 1) -> list[int]:
    """Where the anchored records stand."""
    return [at for at, line in enumerate(lines) if b'"sequence":' in line and sequence_of(line) <= last]


def sequence_of(line: bytes) -> int:
    record = read_line(line)
    assert isinstance(record, ExecutionRecord)
    return record.sequence


def leaf_paths(value: Any, path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    if isinstance(value, dict):
        return [each for key, inner in value.items() for each in leaf_paths(inner, (*path, str(key)))]  # pyright: ignore
    return [path]


def with_altered_field(chance: random.Random, line: bytes) -> bytes:
    whole: Any = json.loads(line)
    path = chance.choice(leaf_paths(whole))
    inner = whole
    for key in path[:-1]:
        inner = inner[key]
    old = inner[path[-1]]
    inner[path[-1]] = altered(chance, old)
    return json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def altered(chance: random.Random, old: Any) -> Any:
    if isinstance(old, int):
        return chance.choice([old + 1, max(old - 1, 0) if old else old + 2, old + chance.randrange(1, 10**6)])
    at = chance.randrange(len(old))
    return old[:at] + chance.choice([each for each in "0123456789abcdef" if each != old[at]]) + old[at + 1 :]


def edit_a_field(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines))
    sequence = sequence_of(lines[at])
    return [*lines[:at], with_altered_field(chance, lines[at]), *lines[at + 1 :]], (sequence, sequence), True


def edit_the_written_form(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines))
    sequence = sequence_of(lines[at])
    whole: Any = json.loads(lines[at])
    forms = [
        json.dumps(whole, sort_keys=True).encode() + b"\n",
        msgspec.json.encode(whole | {"note": "x"}, order="sorted") + b"\n",
        lines[at][:-2] + b"\n",
        b"\n",
        b"\xff" + lines[at],
    ]
    return [*lines[:at], chance.choice(forms), *lines[at + 1 :]], (sequence, sequence), True


def drop(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines))
    sequence = sequence_of(lines[at])
    return [*lines[:at], *lines[at + 1 :]], (sequence, sequence), True


def duplicate(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines))
    to = chance.randrange(1, len(lines) + 1)
    sequence = sequence_of(lines[at])
    return [*lines[:to], lines[at], *lines[to:]], (sequence, sequence), True


def swap(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    one, other = sorted(chance.sample(record_places(lines), 2))
    edited = [*lines]
    edited[one], edited[other] = edited[other], edited[one]
    return edited, (sequence_of(lines[one]), sequence_of(lines[other])), False


def move_to_another_batch(chance: random.Random, scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.choice(record_places(lines))
    sequence = sequence_of(lines[at])
    own = next(each for each in scene.batches if each.first <= sequence <= each.last)
    rest = [*lines[:at], *lines[at + 1 :]]
    others = [place for place in record_places(rest) if not own.first <= sequence_of(rest[place]) <= own.last]
    to = chance.choice(others)
    return [*rest[:to], lines[at], *rest[to:]], (sequence, sequence), True


def exported_anew(scene: Scene, records: Sequence[ExecutionRecord], *, honest_batches: bool) -> Lines:
    """As a liar would write it: every hash behind the edit made anew, and if they like, every batch line too."""
    batches = scene.batches if honest_batches else cut(records, SIZES)
    return [*lines_of(scene.header, batches, records)]


def linked_anew(records: Sequence[ExecutionRecord], first: int) -> list[ExecutionRecord]:
    """Numbers and links from `first` on follow from what stands before."""
    linked = [*records[:first]]
    for each in records[first:]:
        linked.append(
            msgspec.structs.replace(each, sequence=len(linked), previous_hash=record_hash(linked[-1]))
            if linked
            else each
        )
    return linked


def edit_and_hash_anew(chance: random.Random, scene: Scene, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(ANCHORED)
    old = scene.records[at]
    fields: list[Any] = [
        {"usage": msgspec.structs.replace(old.usage, completion_tokens=chance.randrange(10**6))},
        {"result_hash": altered(chance, old.result_hash)},
        {"finished_at": old.finished_at + 1},
    ]
    records = [*scene.records]
    records[at] = msgspec.structs.replace(old, **chance.choice(fields))
    records = linked_anew(records, at + 1)
    return exported_anew(scene, records, honest_batches=chance.random() < 0.5), (at, at), False


def insert_and_hash_anew(chance: random.Random, scene: Scene, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(1, ANCHORED)
    forged = msgspec.structs.replace(scene.records[0], request_id=f"req_{chance.randrange(10**9):064x}")
    records = linked_anew([*scene.records[:at], forged, *scene.records[at:]], at)
    return exported_anew(scene, records, honest_batches=chance.random() < 0.5), (at, at), False


def drop_and_hash_anew(chance: random.Random, scene: Scene, _lines: Lines) -> tuple[Lines, Span, bool]:
    at = chance.randrange(ANCHORED)
    records = linked_anew([*scene.records[:at], *scene.records[at + 1 :]], max(at, 1))
    return exported_anew(scene, records, honest_batches=chance.random() < 0.5), (at, at), False


def replace_in_a_batch(chance: random.Random, scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    places = [at for at, line in enumerate(lines) if line.startswith(b'{"batch":{')]
    at = chance.choice(places)
    batch = scene.batches[places.index(at)]
    whole: Any = json.loads(lines[at])
    name = chance.choice([*whole["batch"], "merkle_root", "merkle_root"])
    whole["batch"][name] = altered(chance, whole["batch"][name])
    edited = msgspec.json.encode(whole, order="sorted") + b"\n"
    return [*lines[:at], edited, *lines[at + 1 :]], (batch.first, batch.last), False


def drop_a_batch_line(chance: random.Random, scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    places = [at for at, line in enumerate(lines) if line.startswith(b'{"batch":{')]
    at = chance.choice(places)
    batch = scene.batches[places.index(at)]
    return [*lines[:at], *lines[at + 1 :]], (batch.first, batch.last), False


def cut_the_end_off(chance: random.Random, _scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    places = record_places(lines)
    kept = chance.choice([0, *range(len(places))])
    return lines[: places[kept]], (sequence_of(lines[places[kept]]), ANCHORED - 1), False


def drop_a_whole_batch(chance: random.Random, scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    batch = chance.choice(scene.batches)
    begin = next(at for at, line in enumerate(lines) if line == written_batch(batch))
    return [*lines[:begin], *lines[begin + 1 + batch.count :]], (batch.first, batch.last), False


def swap_two_batches(chance: random.Random, scene: Scene, lines: Lines) -> tuple[Lines, Span, bool]:
    blocks: list[Lines] = []
    for batch in scene.batches:
        begin = lines.index(written_batch(batch))
        blocks.append(lines[begin : begin + 1 + batch.count])
    one, other = sorted(chance.sample(range(len(blocks)), 2))
    blocks[one], blocks[other] = blocks[other], blocks[one]
    rest = lines[1 + sum(map(len, blocks)) :]
    edited = [lines[0], *(line for block in blocks for line in block), *rest]
    return edited, (scene.batches[one].first, scene.batches[other].last), False


def written_batch(batch: Batch) -> bytes:
    return b'{"batch":' + msgspec.json.encode(batch, order="sorted") + b"}\n"


EVERY_EDIT: tuple[Edit, ...] = (
    edit_a_field, edit_a_field, edit_a_field, edit_the_written_form, drop, duplicate, swap, move_to_another_batch,
    edit_and_hash_anew, insert_and_hash_anew, drop_and_hash_anew, replace_in_a_batch, replace_in_a_batch,
    drop_a_batch_line, cut_the_end_off, drop_a_whole_batch, swap_two_batches,
)  # fmt: skip


def test_a_thousand_random_edits_are_all_noticed_and_the_records_named(scene: Scene) -> None:
    chance = random.Random(20261121)
    lines = scene.export()
    for number in range(EDITS):
        edit = EVERY_EDIT[number % len(EVERY_EDIT)]
        edited, (first, last), exact = edit(chance, scene, [*lines])

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
    at = record_places(lines)[100]
    lines[at] = lines[at].replace(b'"completion_tokens":120', b'"completion_tokens":20')

    found = scene.audited(lines)

    assert [each.message for each in found.findings] == ["record 100: altered; another was anchored"]
    assert (found.findings[0].batch, found.covered) == (3, ANCHORED - 1)


def test_an_edit_with_all_hashes_made_anew_is_narrowed_to_its_batch(scene: Scene) -> None:
    records = [*scene.records]
    records[100] = msgspec.structs.replace(records[100], rate=5)

    found = scene.audited(exported_anew(scene, linked_anew(records, 101), honest_batches=True))

    altered_spans = [(each.first, each.last) for each in found.findings if each.kind == "altered"]
    assert altered_spans == [(61, 105), (106, 185), (186, 215), (216, 239)]
    assert found.covered == 61


def test_two_records_dropped_beside_each_other_are_both_named(scene: Scene) -> None:
    lines = scene.export()
    at = record_places(lines)[100]

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
