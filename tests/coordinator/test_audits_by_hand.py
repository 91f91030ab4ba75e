"""What the coordinator asks of auditors and makes of their answers, with real seals, signatures and stores."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
from auditing_scene import (
    OFFSETS,
    TEXT,
    WORDS,
    Auditors,
    audited,
    auditors,
    executed,
    hand_nodes,
    payload_of,
)
from hand_driven import Opened, public_pem, rsa_key

from parallelix.coordinator.mailbox import REDELIVERY_MS
from parallelix.protocol import records, work
from parallelix.protocol.work import Entry


async def all_records(scene: Auditors) -> list[records.Record]:
    await scene.coordinator.journal.flushed()
    rows = await scene.coordinator.readers.records_range(0, 100)
    found = [records.decode_record(row.body) for row in rows]
    records.verify_chain(found, head_hash=scene.engine.recorder.head_hash)
    return found


async def test_an_honest_result_is_agreed_with_by_another_owners_node(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2)) as scene:
        executor, request_id = await scene.executed()
        assert (await scene.view(request_id)).audit == "pending"
        auditor = await scene.audit(request_id)
        assert auditor is not executor
        view = await scene.view(request_id)
        assert (view.state, view.audit, view.refunded_wei) == ("completed", "agree", "0")
        assert int(view.charge_wei) > 0
        execution, audit = await all_records(scene)
        assert isinstance(audit, records.AuditRecord)
        assert (audit.verdict, audit.execution_hash) == ("agree", records.record_hash(execution))


async def test_an_auditor_is_shown_the_prompt_and_the_text_and_none_of_the_numbers(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2)) as scene:
        _, request_id = await scene.executed(seed=5, top_logprobs=1)
        _, unit = await scene.auditing(request_id)
        payload = payload_of(unit)
        assert payload.probes is not None
        assert payload.probes.text == TEXT
        assert payload.probes.positions[0] == 0
        assert set(payload.probes.positions) <= set(OFFSETS)
        assert [message.content for message in payload.messages] == ["say so, 0 times"]
        assert (payload.sampling.max_tokens, payload.sampling.top_logprobs) == (1, work.PROBE_TOP)
        assert "-0." not in unit.payload.decode()
        assert unit.unit.unit_id != request_id


async def test_a_cheat_that_a_third_node_overrules_too_is_overturned_and_refunded(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        executor, request_id = await scene.executed("lie")
        hold = (await scene.view(request_id)).charge_wei
        before = (await scene.coordinator.account(scene.key)).available_wei
        first = await scene.audit(request_id)
        assert (await scene.view(request_id)).audit == "pending"
        third = await scene.audit(request_id)
        assert len({executor.node_id, first.node_id, third.node_id}) == 3
        view = await scene.view(request_id)
        assert (view.audit, view.charge_wei, view.refunded_wei) == ("disagree", "0", hold)
        assert int(hold) > 0
        assert int((await scene.coordinator.account(scene.key)).available_wei) == int(before) + int(hold)
        (ended,) = scene.all_told("audit.ended")
        assert (ended["node_id"], ended["verdict"]) == (str(executor.node_id), "disagree")
        inbox = await executor.http.get(
            f"/operator/inbox?nodeId={executor.node_id}&slots=0", headers=executor.headers("inbox")
        )
        (rejection,) = inbox.json()["rejections"]
        assert rejection["unit_id"] == request_id
        assert rejection["reason"].startswith("audit_disagreed")


async def test_an_auditor_that_a_third_node_contradicts_does_no_harm(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        _, request_id = await scene.executed()
        liar = await scene.audit(request_id, "lie")
        await scene.audit(request_id)
        view = await scene.view(request_id)
        assert (view.audit, view.audit_reason) == ("agree", "auditor_overruled")
        assert int(view.charge_wei) > 0
        assert scene.engine.trust.of(liar.node_id).auditor_millinats > 0


Change: TypeAlias = Callable[[list[Entry]], list[Entry]]


def with_entries(unit: Opened, change: Change) -> dict[str, Any]:
    right = audited(payload_of(unit))
    entries = list(work.decode_entries(right["entries"]))
    return right | {"entries": work.encode_entries(change(entries))}


def above_zero(entries: list[Entry]) -> list[Entry]:
    return [Entry("x", 0.5, (("x", 0.5),)), *entries[1:]]


def above_one(entries: list[Entry]) -> list[Entry]:
    return [Entry("x", math.log(0.9), (("x", math.log(0.9)), ("y", math.log(0.9)))), *entries[1:]]


def without_numbers(entries: list[Entry]) -> list[Entry]:
    return [Entry("", None, ()) for _ in entries]


def too_few_counts(unit: Opened) -> dict[str, Any]:
    right = audited(payload_of(unit))
    counts = right["content"].probe_prompt_tokens[1:]
    return right | {"content": msgspec.structs.replace(right["content"], probe_prompt_tokens=counts)}


WRONG: dict[str, tuple[Callable[[Opened], dict[str, Any]], str]] = {
    "one entry is missing": (lambda unit: with_entries(unit, lambda entries: entries[1:]), "malformed_audit"),
    "one entry too many": (lambda unit: with_entries(unit, lambda entries: [*entries, entries[0]]), "malformed"),
    "one count is missing": (too_few_counts, "malformed_audit"),
    "a positive logarithm": (lambda unit: with_entries(unit, above_zero), "impossible_probability"),
    "more than one in all": (lambda unit: with_entries(unit, above_one), "impossible_probability"),
    "an answer instead of an audit": (lambda unit: executed(), "malformed"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_an_answer_that_cannot_be_one_is_rejected_and_the_unit_audited_elsewhere(
    tmp_path: Path, wrong: str
) -> None:
    make, code = WRONG[wrong]
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        executor, request_id = await scene.executed()
        node, unit = await scene.auditing(request_id)
        assert (await node.acknowledge(unit)).status_code == 200
        answer = await node.return_(node.result(unit, **make(unit)))
        assert (answer.status_code, answer.json()["accepted"]) == (200, False)
        assert answer.json()["reason"].startswith(code)
        assert [each["reason"].startswith(code) for each in scene.all_told("node.flagged")] == [True]
        again = await scene.audit(request_id)
        assert again.node_id not in (node.node_id, executor.node_id)
        assert (await scene.view(request_id)).audit == "agree"


async def test_an_answer_to_another_audit_is_rejected(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2)) as scene:
        _, first = await scene.executed()
        node, one = await scene.auditing(first)
        await scene.answer(node, one, audited(payload_of(one)))
        executor, request_id = await scene.executed()
        auditor, another = await scene.auditing(request_id)
        assert executor is not auditor
        # What a node signs names the unit, so what it says of another one is nobody's word about this.
        foreign = auditor.result(one, **audited(payload_of(one)))
        mine = auditor.result(another, **audited(payload_of(another)))
        moved = msgspec.structs.replace(
            mine, poe=foreign.poe, signature=foreign.signature, poe_signature=foreign.poe_signature
        )
        assert (await auditor.acknowledge(another)).status_code == 200
        answer = (await auditor.return_(moved)).json()
        assert (answer["accepted"], answer["reason"].split(":")[0]) == (False, "bad_signature")


async def test_an_auditor_that_is_too_late_is_passed_over(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3), audit_deadline_seconds=0.3) as scene:
        _, request_id = await scene.executed()
        node, unit = await scene.auditing(request_id)
        assert (await node.acknowledge(unit)).status_code == 200
        audit_id = unit.unit.unit_id

        def is_elsewhere() -> bool:
            attempt = scene.engine.requests[audit_id].open_attempt
            return attempt is not None and attempt.node_id != node.node_id

        await scene.until(is_elsewhere)
        late = await node.return_(node.result(unit, **audited(payload_of(unit))))
        assert late.json()["error"] == "attempt_closed"
        await scene.audit(request_id)
        assert (await scene.view(request_id)).audit == "agree"


async def test_without_a_second_node_in_time_the_execution_is_unaudited_and_charged(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(1), audit_queue_seconds=0.2, batch_records_max=1) as scene:
        _, request_id = await scene.executed()
        assert not (await scene.view(request_id)).settled
        await scene.until(lambda: not scene.coordinator.auditing.is_open(request_id))
        view = await scene.view(request_id)
        assert (view.audit, view.audit_reason) == ("unaudited", "no_second_node")

        async def settled() -> bool:
            return (await scene.view(request_id)).settled

        await scene.until_async(settled)


async def test_an_open_audit_begins_anew_after_a_restart(tmp_path: Path) -> None:
    nodes = hand_nodes(3)
    async with auditors(tmp_path, nodes) as scene:
        executor, request_id = await scene.executed("lie")
        await scene.audit(request_id)
        node, before = await scene.auditing(request_id)
        key = scene.key
    async with auditors(tmp_path, nodes) as scene:
        late = await node.return_(node.result(before, **audited(payload_of(before))))
        assert late.status_code != 200
        first_node, unit = await scene.auditing(request_id)
        assert unit.secrets.content_key != before.secrets.content_key
        assert payload_of(unit).messages == payload_of(before).messages
        await scene.answer(first_node, unit, audited(payload_of(unit)))
        await scene.audit(request_id)
        view = await scene.coordinator.view(key, request_id)
        assert (view.audit, view.charge_wei) == ("disagree", "0")
        assert await scene.coordinator.readers.claim(unit.unit.unit_id) is None
        assert executor.node_id != first_node.node_id


async def test_a_result_for_the_requesters_eyes_only_is_audited_and_then_forgotten(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2)) as scene:
        _, request_id = await scene.executed(requester_public_key=public_pem(rsa_key("requester")))
        audit_id = scene.audit_id(request_id)
        claim = await scene.coordinator.readers.claim(audit_id)
        assert claim is not None
        assert TEXT.encode() not in claim.sealed
        await scene.audit(request_id)
        assert (await scene.view(request_id)).audit == "agree"
        await scene.coordinator.journal.flushed()
        assert await scene.coordinator.readers.claim(audit_id) is None
        assert scene.coordinator.auditing.find(audit_id) is None


async def test_neither_prompt_nor_answer_nor_numbers_are_logged(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        _, request_id = await scene.executed("lie")
        await scene.audit(request_id)
        await scene.audit(request_id)
        logged = repr(scene.told)
        assert "audit.ended" in logged
        assert "say so" not in logged
        assert TEXT not in logged
        assert " lie" not in logged


async def test_a_follower_is_told_the_verdict_after_the_end(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        _, request_id = await scene.executed("lie")
        following = asyncio.create_task(scene.events(request_id))
        await scene.until(lambda: scene.coordinator.verdicts_awaited)
        await scene.audit(request_id)
        assert not following.done()
        await scene.audit(request_id)
        *_, (ended, end), (name, verdict) = await following
        assert (ended, end["audit"], name) == ("completed", "pending", "audit")
        assert (verdict["id"], verdict["verdict"], verdict["charge_wei"]) == (request_id, "disagree", "0")
        assert verdict["refunded_wei"] == end["charge_wei"]
        # Who asks later gets both at once.
        assert (await scene.events(request_id))[-1] == (name, verdict)


async def test_where_nothing_is_drawn_a_followers_stream_ends_with_the_request(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2), audits=False) as scene:
        request_id = await scene.create()
        node, unit = await scene.taken(request_id)
        await scene.answer(node, unit, executed())
        *_, (name, end) = await scene.events(request_id)
        assert (name, end["audit"]) == ("completed", "off")
        (record,) = await all_records(scene)
        assert isinstance(record, records.ExecutionRecord)
        assert record.rate == 0


async def test_some_audits_that_agreed_are_put_to_another_node_to_test_it(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3), prepared_percent=100) as scene:
        executor, request_id = await scene.executed()
        first, unit = await scene.auditing(request_id)
        await scene.answer(first, unit, audited(payload_of(unit)))
        third, again = await scene.taken(scene.prepared)
        assert len({executor.node_id, first.node_id, third.node_id}) == 3
        assert payload_of(again) == payload_of(unit)
        await scene.answer(third, again, audited(payload_of(again)))
        assert not scene.engine.audits
        assert len(await all_records(scene)) == 2
        assert scene.all_told("audit.ended")[-1]["verdict"] == "agree"


async def test_an_auditor_that_copies_what_it_is_shown_is_marked(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3), prepared_percent=100) as scene:
        _, request_id = await scene.executed()
        await scene.audit(request_id)
        lazy, unit = await scene.taken(scene.prepared)
        await scene.answer(lazy, unit, audited(payload_of(unit), "lie"))
        assert scene.engine.trust.of(lazy.node_id).auditor_millinats > 0
        assert (await scene.view(request_id)).audit == "agree"


async def test_what_cannot_be_compared_is_run_again_whole_and_equal_bytes_acquit(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        _, request_id = await scene.executed()
        first, unit = await scene.auditing(request_id)
        await scene.answer(first, unit, with_entries(unit, without_numbers))
        second, unit = await scene.auditing(request_id)
        await scene.answer(second, unit, with_entries(unit, without_numbers))
        whole_node, whole = await scene.auditing(request_id)
        assert payload_of(whole).probes is None
        assert whole.secrets.content_key != unit.secrets.content_key
        await scene.answer(whole_node, whole, executed())
        view = await scene.view(request_id)
        assert (view.audit, view.audit_reason) == ("agree", "equal")


async def test_one_auditors_word_that_nothing_can_be_compared_is_not_enough(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        executor, request_id = await scene.executed()
        liar, unit = await scene.auditing(request_id)
        await scene.answer(liar, unit, with_entries(unit, without_numbers))
        second = await scene.audit(request_id)
        assert len({executor.node_id, liar.node_id, second.node_id}) == 3
        assert (await scene.view(request_id)).audit == "agree"
        assert scene.engine.trust.of(executor.node_id).unusable_millinats == 0


async def test_what_was_run_whole_is_run_whole_after_a_restart(tmp_path: Path) -> None:
    """And is put to no other auditor as one whose answer is known: nobody knows it."""
    nodes = hand_nodes(3)
    bare = executed() | {"entries": work.encode_entries([Entry(word, None, ()) for word in WORDS])}
    async with auditors(tmp_path, nodes, prepared_percent=100) as scene:
        request_id = await scene.create()
        executor, unit = await scene.taken(request_id)
        await scene.answer(executor, unit, bare)
    async with auditors(tmp_path, nodes, prepared_percent=100) as scene:
        auditor, unit = await scene.auditing(request_id)
        assert payload_of(unit).probes is None
        await scene.answer(auditor, unit, bare)
        view = await scene.view(request_id)
        assert (view.audit, view.audit_reason) == ("agree", "equal")
        assert not scene.engine.audits


async def test_work_whose_answer_was_rejected_is_not_handed_out_again(tmp_path: Path) -> None:
    """Neither a request's nor an audit's, though nobody acknowledged it."""
    wrong: dict[str, Any] = executed() | {"entries": work.encode_entries([Entry("x", 0.5, ())])}
    async with auditors(tmp_path, hand_nodes(3)) as scene:
        request_id = await scene.create()
        executor, first = await scene.taken(request_id)
        refused = await executor.return_(executor.result(first, **wrong))
        assert not refused.json()["accepted"]
        again, unit = await scene.taken(request_id)
        await scene.answer(again, unit, executed())
        auditor, audit = await scene.auditing(request_id)
        refused = await auditor.return_(auditor.result(audit, **too_few_counts(audit)))
        assert not refused.json()["accepted"]
        await scene.coordinator.journal.flushed()
        later = scene.coordinator.clock() + 2 * REDELIVERY_MS
        for node, unit in ((executor, first), (auditor, audit)):
            inbox = scene.coordinator.mailbox(node.node_id).take(9, later)
            handed_out = {each.attempt_id for each in inbox.work} if inbox is not None else set[str]()
            assert unit.unit.attempt_id not in handed_out


async def test_no_more_text_is_kept_for_audits_than_there_is_room_for(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(1), open_payload_bytes_max=2**20) as scene:
        request_ids: list[str] = []
        while not request_ids or (await scene.view(request_ids[-1])).audit == "pending":
            request_ids.append(await scene.create(more=30_000 * "!"))
            node, unit = await scene.taken(request_ids[-1])
            await scene.answer(node, unit, executed())
            assert len(request_ids) < 20
        last = await scene.view(request_ids[-1])
        assert (last.audit, last.audit_reason) == ("unaudited", "too_many_open")
        assert 2**20 < scene.coordinator.auditing.held_bytes < 2**20 + 200_000


async def test_room_that_an_audit_took_is_given_back(tmp_path: Path) -> None:
    async with auditors(tmp_path, hand_nodes(2)) as scene:
        _, request_id = await scene.executed()
        assert scene.coordinator.auditing.held_bytes > 1000
        await scene.audit(request_id)
        assert scene.coordinator.auditing.held_bytes == 0
