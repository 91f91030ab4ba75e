"""What the public can find out about audits: nobody is accused who drew as was promised, and every lie is found."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from audit_lives import (
    HOUR_MS,
    MASTER,
    PATIENCE_MS,
    Network,
    an_audit,
    execution,
    executions,
    is_drawn,
    linked,
    lived,
)
from parallelix.protocol import sampling
from parallelix.protocol.audit_log import QUIET_MS, AuditLog, PublicEpoch, check
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.records import (
    AuditRecord,
    ExecutionRecord,
    Record,
    decode_record,
    record_hash,
)
from parallelix.protocol.sampling import Epoch

# Nobody is accused who drew as was promised


@vectors.examples(200)
@given(st.integers(0, 2**32), st.integers(0, 120))
def test_an_honest_network_is_never_accused_wherever_its_records_end(seed: int, steps: int) -> None:
    network = lived(seed, steps=steps)
    told = network.checked()
    end = network.chance.randrange(len(network.records) + 1)
    cut = check(network.records[:end], network.epochs)

    assert (told.violations, cut.violations) == ((), ())
    for each in told.epochs:
        if each.drawn is not None:
            assert each.pending is not None and each.recorded + each.pending == each.drawn
            assert each.recorded == each.agree + each.disagree + each.inconclusive + each.unaudited
    assert sum(each.executions for each in told.epochs) == len(executions(network.records))


def test_the_vectors_are_honest_and_counted() -> None:
    chain = [decode_record(each["canonical"].encode()) for each in vectors.load("records")["audited"]["records"]]
    secrets = vectors.load("sampling")
    epochs = [
        PublicEpoch(epoch=Epoch(epoch=each["epoch"], commitment=each["commitment"], secret=each["secret"]))
        for each in secrets["epochs"]
    ]

    (told,) = check(chain, epochs).epochs

    assert (told.epoch, told.state, told.executions, told.drawn, told.recorded) == (
        secrets["epoch"],
        "revealed",
        12,
        7,
        7,
    )
    assert (told.agree, told.disagree, told.inconclusive, told.unaudited) == (2, 2, 2, 1)
    assert (told.lowest_rate, told.pending) == (10, 0)


def test_what_was_not_audited_is_listed_with_its_reason() -> None:
    network = lived(5, is_over=True)
    audits = [each for each in network.records if isinstance(each, AuditRecord) and each.verdict == "unaudited"]
    told = network.checked()

    assert told.reasons == {"no_second_node": len(audits)}
    assert [each.audit for each in told.unaudited] == [each.sequence for each in audits]
    hashes = [record_hash(each) for each in network.records]
    assert [hashes[each.execution] for each in told.unaudited] == [each.execution_hash for each in audits]


def test_a_coordinator_that_was_down_for_days_with_an_audit_open_is_not_accused() -> None:
    network = Network(random.Random(1))
    network.begin_epoch()
    while not network.open_audits:
        network.execute()
    waiting = network.open_audits.pop()
    for _ in range(3):
        network.now_ms += 50 * HOUR_MS
        network.execute()
        network.open_audits.clear()
    network.begin_epoch()
    network.reveal(0)

    assert network.checked().holds
    assert any(waiting == record_hash(each) for each in network.records)
    assert network.checked(pending_ms=QUIET_MS).found > 0


def test_the_order_of_a_part_says_which_epoch_is_told() -> None:
    network = lived(3, is_over=True)
    (told,) = network.checked(only_epoch=1).epochs
    whole = {each.epoch: each for each in network.checked().epochs}

    assert told == whole[1]
    assert len(whole) > 2


# Every lie is found


Lie: TypeAlias = Callable[[Network, list[Record], random.Random], "tuple[list[Record], set[str], int] | None"]
"""Gives the records of the lie, of which kinds one violation must be, and which record it must name; none where this
life offers no occasion."""


def flip_a_rate(network: Network, records: list[Record], chance: random.Random) -> Any:
    """A lower one than was drawn by: what was drawn is then not, or the rate is none."""
    settled = [each for each in executions(records) if network.epochs[each.epoch].epoch.secret]
    record = chance.choice(settled)
    rate = chance.choice([0, 1, 9, 11, 99, 101])
    records[record.sequence] = msgspec.structs.replace(record, rate=rate)
    return linked(records, record.sequence, instead_of=record), {"rate"}, record.sequence


def flip_to_a_rate_that_there_is(network: Network, records: list[Record], chance: random.Random) -> Any:
    """As if it had been drawn at that rate, when it was not, or the other way round."""
    for record in chance.sample(executions(records), len(executions(records))):
        secret = sampling.epoch_secret(MASTER, record.epoch)
        flipped = [msgspec.structs.replace(record, rate=rate) for rate in sampling.RATES_PERCENT]
        others = [each for each in flipped if is_drawn(each, secret) != is_drawn(record, secret)]
        if not others or not network.epochs[record.epoch].epoch.secret:
            continue
        records[record.sequence] = chance.choice(others)
        if not is_drawn(record, secret):
            return linked(records, record.sequence, instead_of=record), {"missing"}, record.sequence
        digest = record_hash(record)
        audit = next(each for each in records if isinstance(each, AuditRecord) and each.execution_hash == digest)
        return linked(records, record.sequence, instead_of=record), {"not_drawn"}, audit.sequence
    return None


def drop_an_audit(network: Network, records: list[Record], chance: random.Random) -> Any:
    audits = audits_of_revealed(network, records)
    if not audits:
        return None
    audit = chance.choice(audits)
    about = next(each for each in records if record_hash(each) == audit.execution_hash)
    return linked([each for each in records if each is not audit], audit.sequence), {"missing"}, about.sequence


def add_an_audit(network: Network, records: list[Record], chance: random.Random) -> Any:
    spared = [
        each
        for each in executions(records)
        if network.epochs[each.epoch].epoch.secret and not is_drawn(each, sampling.epoch_secret(MASTER, each.epoch))
    ]
    if not spared:
        return None
    record = chance.choice(spared)
    at = chance.randrange(record.sequence + 1, len(records) + 1)
    forged = an_audit(at, record_hash(record), "agree", "within", record.finished_at)
    return linked([*records[:at], forged, *records[at:]], at), {"not_drawn"}, at


def repeat_an_audit(network: Network, records: list[Record], chance: random.Random) -> Any:
    audit = chance.choice([each for each in records if isinstance(each, AuditRecord)])
    at = chance.randrange(audit.sequence + 1, len(records) + 1)
    again = msgspec.structs.replace(audit, verdict="agree")
    return linked([*records[:at], again, *records[at:]], at), {"twice"}, at


def name_another_execution(network: Network, records: list[Record], chance: random.Random) -> Any:
    """The one that was drawn is without its audit, and the other has one too many."""
    audits = audits_of_revealed(network, records)
    if not audits:
        return None
    audit = chance.choice(audits)
    about = next(each for each in records if record_hash(each) == audit.execution_hash)
    others = [each for each in executions(records[: audit.sequence]) if each is not about]
    if not others:
        return None
    records[audit.sequence] = msgspec.structs.replace(audit, execution_hash=record_hash(chance.choice(others)))
    return linked(records, audit.sequence), {"missing"}, about.sequence


def name_no_execution(network: Network, records: list[Record], chance: random.Random) -> Any:
    audit = chance.choice([each for each in records if isinstance(each, AuditRecord)])
    records[audit.sequence] = msgspec.structs.replace(audit, execution_hash=to_hex(chance.randbytes(32)))
    return linked(records, audit.sequence), {"unknown"}, audit.sequence


def name_an_old_epoch(network: Network, records: list[Record], chance: random.Random) -> Any:
    newest, places = 0, list[ExecutionRecord]()
    for each in executions(records):
        if newest >= 2 and each.epoch == newest:
            places.append(each)
        newest = max(newest, each.epoch)
    if not places:
        return None
    record = chance.choice(places)
    records[record.sequence] = msgspec.structs.replace(record, epoch=record.epoch - 2)
    return linked(records, record.sequence, instead_of=record), {"epoch"}, record.sequence


def name_an_epoch_to_come(network: Network, records: list[Record], chance: random.Random) -> Any:
    record = chance.choice(executions(records))
    records[record.sequence] = msgspec.structs.replace(record, epoch=len(network.epochs))
    return linked(records, record.sequence, instead_of=record), {"uncommitted"}, record.sequence


def audits_of_revealed(network: Network, records: Sequence[Record]) -> list[AuditRecord]:
    about = {record_hash(each): each for each in executions(records)}
    return [
        each
        for each in records
        if isinstance(each, AuditRecord) and network.epochs[about[each.execution_hash].epoch].epoch.secret
    ]


LIES: tuple[Lie, ...] = (
    flip_a_rate, flip_to_a_rate_that_there_is, drop_an_audit, add_an_audit, repeat_an_audit, name_another_execution,
    name_no_execution, name_an_old_epoch, name_an_epoch_to_come,
)  # fmt: skip


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.__name__)
@vectors.examples(30)
@given(seed=st.integers(0, 2**32))
def test_every_lie_is_found_and_named_though_all_hashes_are_made_anew(lie: Lie, seed: int) -> None:
    network = lived(seed, is_over=True)
    honest = [*network.records]
    told = lie(network, [*honest], random.Random(seed))
    if told is None:
        return
    records, kinds, sequence = told

    # The blocks are of the honest records, and would find more.
    found = check(records, network.epochs, pending_ms=PATIENCE_MS)

    named = [(each.kind, each.first, each.last) for each in found.violations]
    assert any(
        kind in kinds and first is not None and last is not None and first <= sequence <= last
        for kind, first, last in named
    ), named
    assert check(honest, network.epochs, pending_ms=PATIENCE_MS).holds


@vectors.examples(20)
@given(st.integers(0, 2**32))
def test_another_secret_is_noticed_whether_or_not_it_fits_what_was_committed_to(seed: int) -> None:
    network = lived(seed, is_over=True)
    counted = {each.epoch: each for each in network.checked().epochs}
    epoch = max(counted, key=lambda each: (counted[each].drawn or 0, each))
    other = hashlib.sha256(sampling.epoch_secret(MASTER, epoch)).digest()
    public = network.epochs[epoch]
    secret = msgspec.structs.replace(public.epoch, secret=to_hex(other))
    fitting = msgspec.structs.replace(secret, commitment=to_hex(sampling.commitment(other)))

    def told(changed: Epoch) -> AuditLog:
        epochs = [*network.epochs]
        epochs[epoch] = msgspec.structs.replace(public, epoch=changed)
        return check(network.records, epochs, pending_ms=PATIENCE_MS)

    assert {each.kind for each in told(secret).violations} == {"secret"}
    assert next(each.state for each in told(secret).epochs if each.epoch == epoch) == "wrong"
    below = [each for each in executions(network.records) if each.epoch == epoch and each.rate < 100]
    differing = [
        each for each in below if is_drawn(each, other) != is_drawn(each, sampling.epoch_secret(MASTER, epoch))
    ]
    assert bool(told(fitting).found) == bool(differing)


def test_without_any_secret_only_what_needs_none_is_found() -> None:
    network = lived(11, is_over=True)
    hidden = [PublicEpoch(epoch=msgspec.structs.replace(each.epoch, secret="")) for each in network.epochs]
    always = next(each for each in executions(network.records) if each.rate == 100)
    audit = next(
        each for each in network.records if isinstance(each, AuditRecord) and each.execution_hash == record_hash(always)
    )
    without = linked([each for each in network.records if each is not audit], audit.sequence)

    told = check(network.records, hidden, pending_ms=PATIENCE_MS)
    assert told.holds
    assert {(each.state, each.drawn, each.pending) for each in told.epochs} == {("open", None, None)}
    assert {each.state for each in check(network.records, None).epochs} == {"unknown"}
    # At a rate of 100 % everything is drawn, whatever the secret.
    assert [(each.kind, each.first) for each in check(without, hidden, pending_ms=PATIENCE_MS).violations] == [
        ("missing", always.sequence)
    ]


# What only numbers show


def at_the_floor(number: int, *, cheats: bool) -> Network:
    """With two epochs that are not out yet, so that who cheats names whichever does not draw."""
    network = Network(random.Random(number))
    network.begin_epoch()
    network.begin_epoch()
    secrets = [sampling.epoch_secret(MASTER, epoch) for epoch in (0, 1)]
    for _ in range(number):
        network.now_ms += 1000
        made = execution(
            len(network.records),
            epoch=1,
            rate=10,
            finished_at=network.now_ms,
            commitment=to_hex(network.chance.randbytes(32)),
        )
        if cheats and is_drawn(made, secrets[1]):
            made = msgspec.structs.replace(made, epoch=0)
        head = record_hash(network.records[-1]) if network.records else made.previous_hash
        network.records.append(made := msgspec.structs.replace(made, previous_hash=head))
        if is_drawn(made, secrets[made.epoch]):
            digest = record_hash(made)
            network.records.append(
                msgspec.structs.replace(
                    an_audit(len(network.records), digest, "agree", "", network.now_ms), previous_hash=digest
                )
            )
    network.begin_epoch()
    network.reveal(1)
    return network


def test_a_coordinator_that_names_whichever_epoch_draws_nothing_is_found_by_how_little_is_drawn() -> None:
    told = at_the_floor(800, cheats=True).checked()

    assert {each.kind for each in told.violations} == {"few"}
    assert "where the rates let" in told.violations[0].message
    assert at_the_floor(800, cheats=False).checked().holds


def test_so_few_that_chance_may_have_it_accuse_nobody() -> None:
    assert at_the_floor(100, cheats=True).checked().holds


# Where a chain keeps the epochs


def test_an_execution_that_was_anchored_when_the_secret_was_out_is_named() -> None:
    network = lived(2, is_over=True)
    epoch = next(each.epoch for each in executions(network.records))
    out = network.epochs[epoch].revealed_block
    first = next(each.sequence for each in executions(network.records) if each.epoch == epoch)
    late = [msgspec.structs.replace(each, block=max(each.block, out + 1)) for each in network.batches]

    found = check(network.records, network.epochs, batches=late, until_block=network.block)
    unanchored = check(network.records, network.epochs, batches=[], until_block=network.block)
    not_yet_told = check(network.records, network.epochs, batches=[], until_block=out - 1)

    assert ("late", first) in [(each.kind, each.first) for each in found.violations]
    assert ("late", first) in [(each.kind, each.first) for each in unanchored.violations]
    assert "late" not in {each.kind for each in not_yet_told.violations if each.epoch == epoch}


def test_an_execution_that_was_anchored_before_its_epoch_was_committed_to_is_named() -> None:
    network = lived(2, is_over=True)
    later = [msgspec.structs.replace(each, committed_block=each.committed_block + 10_000) for each in network.epochs]

    found = check(network.records, later, batches=network.batches, until_block=network.block)

    assert found.violations[0].kind == "uncommitted"
    assert "before epoch 0 was committed to in block" in found.violations[0].message


def test_neighbours_with_one_fault_are_one_violation_and_a_hundred_are_named_at_most() -> None:
    def executed(rates: Sequence[int]) -> list[Record]:
        made: list[Record] = []
        for number, rate in enumerate(rates):
            made.append(
                execution(number, epoch=0, rate=rate, finished_at=number, commitment=to_hex(number.to_bytes(32, "big")))
            )
        return made

    quiet, mixed = check(executed([0] * 500), None), check(executed([0, 7] * 100), None)

    (violation,) = quiet.violations
    assert (violation.message, quiet.found) == ("records 0 to 499: a rate of 0 %, below the floor of 10 %", 1)
    assert (len(mixed.violations), mixed.found) == (100, 200)
    assert check(executed([0] * 5), None, floor_percent=0).holds
    # What nothing was drawn by needs no epoch.
    assert check(executed([0] * 5), [], floor_percent=0).holds
    assert [each.kind for each in check(executed([10] * 5), []).violations] == ["uncommitted"]
    assert check(executed([15] * 5), None).violations[0].message.endswith("which is none of 100, 50, 20, 10 %")
    assert check(executed([20] * 5), None, floor_percent=50).found == 1
