"""What a node sends wrongly, replayed, late or for somebody else gets its documented code and changes nothing."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from hand_driven import (
    CHAIN_ID,
    CONTENT,
    COOLING,
    UNSTAKED,
    HandNode,
    Opened,
    Scene,
    public_pem,
    rsa_key,
    scene,
)

from parallelix.coordinator import operator
from parallelix.protocol import messages, signing, work
from parallelix.protocol.encoding import from_hex, to_base64url, to_hex

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def running(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    async with scene(tmp_path_factory.mktemp("coordinator")) as ready:
        yield ready


@pytest_asyncio.fixture(loop_scope="module")
async def on(running: Scene) -> AsyncIterator[Scene]:
    """The scene, and afterwards nothing open in it."""
    yield running
    await running.clear()


def code_of(answer: httpx.Response) -> tuple[int, str]:
    assert set(answer.json()) == {"error", "message"}, answer.text
    return answer.status_code, answer.json()["error"]


async def changes_nothing(on: Scene, call: Awaitable[httpx.Response]) -> tuple[int, str]:
    """The refusal of the call, after which everything is as before."""
    before = await on.everything()
    refusal = code_of(await call)
    assert await on.everything() == before
    return refusal


def with_high_s(signature: str) -> str:
    """Another encoding of the same signature, which common libraries recover to the same key."""
    raw = from_hex(signature, name="signature", length_bytes=65)
    s = signing.CURVE_ORDER - int.from_bytes(raw[32:64], "big")
    return to_hex(raw[:32] + s.to_bytes(32, "big") + bytes([55 - raw[64]]))


def with_v(signature: str, v: int) -> str:
    return signature[:-2] + f"{v:02x}"


# Attach ---------------------------------------------------------------------------------------------------------------

MALFORMED = (400, "malformed")
BAD_SIGNATURE = (401, "bad_signature")
STALE = (401, "stale_time")


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", MALFORMED),
        (b"{", MALFORMED),
        (b"[]", MALFORMED),
        (b"null", MALFORMED),
        (b"\xff\xfe", MALFORMED),
        (b'{"manifest":"{}","public_key":"0x","signature":"0x"}', MALFORMED),
        (b'{"manifest":7}', MALFORMED),
        (b'{"x":' + b"[" * 100_000, MALFORMED),
        (b'{"manifest":"' + b"x" * 600_000 + b'"}', (413, "body_too_large")),
    ],
)
async def test_an_attach_that_is_no_message_is_refused(on: Scene, body: bytes, expected: tuple[int, str]) -> None:
    assert await changes_nothing(on, on.first.post("attach", body)) == expected


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"slots": 0}, MALFORMED),
        ({"slots": 257}, MALFORMED),
        ({"hardware_tier": 9}, MALFORMED),
        ({"node_id": "01001"}, MALFORMED),
        ({"node_id": "-1"}, MALFORMED),
        ({"node_id": "9" * 79}, MALFORMED),
        ({"chain_id": 1}, MALFORMED),
        ({"chain_id": 2**60}, MALFORMED),
        ({"envelope_key": "no key"}, MALFORMED),
        ({"envelope_key": public_pem(rsa_key("poe"))}, MALFORMED),
        ({"envelope_key": public_pem(rsa_key("weak", 2048))}, MALFORMED),
        ({"models": [{"name": "m", "digest": "zz", "context_tokens": 1}]}, MALFORMED),
        ({"workload_classes": []}, MALFORMED),
        ({"client_version": "x" * 129}, MALFORMED),
        ({"hardware_tier": 1}, (409, "tier_mismatch")),
        ({"node_id": str(UNSTAKED)}, (403, "not_staked")),
        ({"node_id": str(COOLING)}, (403, "in_cooldown")),
        ({"node_id": "1002"}, BAD_SIGNATURE),
    ],
)
async def test_a_manifest_that_says_what_cannot_be_is_refused(
    on: Scene, changes: dict[str, Any], expected: tuple[int, str]
) -> None:
    manifest = msgspec.json.encode({**msgspec.to_builtins(on.first.manifest()), **changes}).decode()
    assert await changes_nothing(on, on.first.post("attach", on.first.attach_body(manifest))) == expected


@pytest.mark.parametrize("off_ms", [-61_000, 61_000, -(10**12), 10**12])
async def test_a_manifest_of_another_time_is_stale(on: Scene, off_ms: int) -> None:
    manifest = on.first.manifest(issued_at=on.first.now() + off_ms)
    assert await changes_nothing(on, on.first.post("attach", on.first.attach_body(manifest))) == STALE


async def test_an_attach_that_is_played_again_is_stale(on: Scene) -> None:
    body = on.first.attach_body(on.first.manifest())
    answer = await on.first.post("attach", body)
    on.first.session = answer.json()["session"]
    assert answer.status_code == 200
    assert await changes_nothing(on, on.first.post("attach", body)) == STALE


async def test_a_node_that_comes_back_without_the_model_is_offered_its_work_no_more(on: Scene) -> None:
    node, unit, other = await on.offered()
    without = await node.post("attach", node.attach_body(node.manifest(models=())))
    assert without.status_code == 200
    elsewhere = await other.take()
    assert (elsewhere.unit.unit_id, elsewhere.unit.attempt_number) == (unit.unit.unit_id, 2)
    await node.attach()


async def test_an_attach_is_taken_only_from_the_registered_key(on: Scene) -> None:
    node, stranger = on.first, signing.NodeKey.generate()
    body = node.attach_body(node.manifest())
    signed_by_stranger = node.attach_body(node.manifest(), key=stranger)
    assert await changes_nothing(on, node.post("attach", signed_by_stranger)) == BAD_SIGNATURE
    all_of_stranger = msgspec.structs.replace(signed_by_stranger, public_key=to_hex(stranger.public_key))
    assert await changes_nothing(on, node.post("attach", all_of_stranger)) == (403, "key_mismatch")
    told = (await node.post("attach", all_of_stranger)).json()["message"]
    assert to_hex(node.key.key_hash) in told and to_hex(stranger.key_hash) in told and "PARALLELIX_HOME" in told
    over_another = msgspec.structs.replace(body, manifest=body.manifest.replace('"one"', '"two"'))
    assert await changes_nothing(on, node.post("attach", over_another)) == BAD_SIGNATURE


async def test_only_one_encoding_of_an_attaching_signature_is_taken(on: Scene) -> None:
    body = on.first.attach_body(on.first.manifest())
    for other in (with_high_s(body.signature), with_v(body.signature, 0), with_v(body.signature, 29)):
        given = msgspec.structs.replace(body, signature=other)
        assert await changes_nothing(on, on.first.post("attach", given)) == BAD_SIGNATURE


# Calls inside a session -----------------------------------------------------------------------------------------------


async def heartbeat(node: HandNode, headers: dict[str, str]) -> httpx.Response:
    return await node.post("heartbeat", messages.Heartbeat(slots_free=1), headers)


async def inbox(node: HandNode, headers: dict[str, str]) -> httpx.Response:
    return await node.http.get(f"/operator/inbox?nodeId={node.node_id}&slots=1", headers=headers)


SESSION_CALLS = [pytest.param(heartbeat, "heartbeat", id="heartbeat"), pytest.param(inbox, "inbox", id="inbox")]
SessionCall = Callable[[HandNode, dict[str, str]], Awaitable[httpx.Response]]


@pytest.mark.parametrize("missing", ["node", "session", "time", "signature"])
@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_a_call_without_one_of_its_headers_is_malformed(
    on: Scene, call: SessionCall, purpose: Any, missing: str
) -> None:
    headers = on.first.headers(purpose)
    del headers[f"x-parallelix-{missing}"]
    assert await changes_nothing(on, call(on.first, headers)) == MALFORMED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"node": "x"}, MALFORMED),
        ({"node": "9" * 80}, MALFORMED),
        ({"node": str(UNSTAKED)}, (403, "not_staked")),
        ({"node": str(COOLING)}, (403, "in_cooldown")),
        ({"node": "1002"}, (401, "unknown_session")),
        ({"session": "0" * 32}, (401, "unknown_session")),
        ({"session": ""}, (401, "unknown_session")),
        ({"time": "-5"}, MALFORMED),
        ({"time": "9" * 17}, MALFORMED),
        ({"time": "0"}, STALE),
        ({"time": "9" * 16}, STALE),
        ({"signature": "0x"}, MALFORMED),
        ({"signature": "0x" + "AB" * 65}, MALFORMED),
        ({"signature": "0x" + "00" * 65}, BAD_SIGNATURE),
        ({"signature": "0x" + "00" * 64 + "1b"}, BAD_SIGNATURE),
        ({"signature": "0x" + "ff" * 32 + "11" * 32 + "1b"}, BAD_SIGNATURE),
    ],
)
@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_a_call_whose_headers_are_wrong_is_refused(
    on: Scene, call: SessionCall, purpose: Any, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    headers = {**on.first.headers(purpose), **{f"x-parallelix-{name}": value for name, value in changes.items()}}
    assert await changes_nothing(on, call(on.first, headers)) == expected


@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_only_one_encoding_of_a_calls_signature_is_taken(on: Scene, call: SessionCall, purpose: Any) -> None:
    headers = on.first.headers(purpose)
    good = headers[messages.HEADER_SIGNATURE]
    for other in (with_high_s(good), with_v(good, 0), with_v(good, 1), with_v(good, 35)):
        assert await changes_nothing(on, call(on.first, {**headers, messages.HEADER_SIGNATURE: other})) == BAD_SIGNATURE
    assert (await call(on.first, headers)).status_code == 200


@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_a_signed_time_is_taken_once_and_only_going_up(on: Scene, call: SessionCall, purpose: Any) -> None:
    earlier, later = on.first.headers(purpose), on.first.headers(purpose)
    assert (await call(on.first, later)).status_code == 200
    answer = await call(on.first, later)
    assert code_of(answer) == STALE
    assert abs(int(answer.headers[messages.HEADER_TIME]) - on.first.now()) < 10_000
    assert await changes_nothing(on, call(on.first, earlier)) == STALE


@pytest.mark.parametrize("off_ms", [-operator.CLOCK_BEHIND_MS - 2_000, operator.CLOCK_AHEAD_MS + 2_000])
@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_a_signed_time_that_is_far_off_is_stale(on: Scene, call: SessionCall, purpose: Any, off_ms: int) -> None:
    headers = on.first.headers(purpose, time=str(on.first.now() + off_ms))
    assert await changes_nothing(on, call(on.first, headers)) == STALE


@pytest.mark.parametrize(("call", "purpose"), SESSION_CALLS)
async def test_a_signature_serves_one_purpose_of_one_node(on: Scene, call: SessionCall, purpose: Any) -> None:
    node, other = on.first, on.second
    swapped = node.headers("inbox" if purpose == "heartbeat" else "heartbeat")
    assert await changes_nothing(on, call(node, swapped)) == BAD_SIGNATURE
    unix_ms = node.now()
    text = signing.timed_text(purpose, CHAIN_ID, node.node_id, node.session, unix_ms)
    by_other = {**node.headers(purpose, time=str(unix_ms)), messages.HEADER_SIGNATURE: to_hex(other.key.sign(text))}
    assert await changes_nothing(on, call(node, by_other)) == BAD_SIGNATURE
    elsewhere = signing.timed_text(purpose, CHAIN_ID + 1, node.node_id, node.session, unix_ms)
    on_other_chain = {**by_other, messages.HEADER_SIGNATURE: to_hex(node.key.sign(elsewhere))}
    assert await changes_nothing(on, call(node, on_other_chain)) == BAD_SIGNATURE


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"slots_free":-1}', b'{"paused":"yes"}', b'{"message":7}'])
async def test_a_mistyped_heartbeat_is_malformed(on: Scene, body: bytes) -> None:
    assert await changes_nothing(on, on.first.post("heartbeat", body, on.first.headers("heartbeat"))) == MALFORMED


@pytest.mark.parametrize("slots", ["-1", "x", "99999", "\u0661"])
async def test_an_inbox_asked_for_what_is_no_number_is_malformed(on: Scene, slots: str) -> None:
    answer = on.first.http.get("/operator/inbox", params={"slots": slots}, headers=on.first.headers("inbox"))
    assert await changes_nothing(on, answer) == MALFORMED


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [("GET", "attach", (405, "method_not_allowed")), ("POST", "inbox", (405, "method_not_allowed")),
     ("POST", "nothing", (404, "not_found")), ("GET", "stream/att_" + "0" * 32, (404, "not_found"))],
)  # fmt: skip
async def test_a_call_that_does_not_exist_is_refused(
    on: Scene, method: str, path: str, expected: tuple[int, str]
) -> None:
    assert await changes_nothing(on, on.first.http.request(method, f"/operator/{path}")) == expected


# Acknowledgement ------------------------------------------------------------------------------------------------------


async def test_an_acknowledgement_proves_that_this_envelope_was_opened(on: Scene) -> None:
    node, unit, _ = await on.offered()
    attempt_id = unit.unit.attempt_id
    sealers = {"delta": unit.sealer("delta"), "result": unit.sealer("result")}
    sealed = {
        "another word": unit.sealer("acknowledgement").seal(b"opened"),
        "under the key for deltas": sealers["delta"].seal(messages.ACKNOWLEDGEMENT),
        "under the key for the result": sealers["result"].seal(messages.ACKNOWLEDGEMENT),
        "not sealed": messages.ACKNOWLEDGEMENT,
        "nothing": b"",
    }
    for what, each in sealed.items():
        body = messages.Acknowledge(attempt_id=attempt_id, sealed=to_base64url(each))
        refusal = await changes_nothing(on, node.post("ack", body, node.headers("ack", attempt_id)))
        assert refusal == (400, "bad_envelope"), what
    assert (await node.acknowledge(unit)).status_code == 200


async def test_what_was_sealed_for_one_attempt_cannot_be_moved_to_another(on: Scene) -> None:
    await on.second.post("heartbeat", messages.Heartbeat(paused=True), on.second.headers("heartbeat"))
    node, one, _ = await on.offered()
    _, two, _ = await on.offered()
    await on.second.post("heartbeat", messages.Heartbeat(), on.second.headers("heartbeat"))
    moved = msgspec.structs.replace(one.acknowledgement, attempt_id=two.unit.attempt_id)
    headers = node.headers("ack", two.unit.attempt_id)
    assert await changes_nothing(on, node.post("ack", moved, headers)) == (400, "bad_envelope")
    # Nor can the signature that was made for one of them.
    headers = node.headers("ack", one.unit.attempt_id)
    assert await changes_nothing(on, node.post("ack", two.acknowledgement, headers)) == BAD_SIGNATURE
    result = node.result(one, attempt_id=two.unit.attempt_id)
    assert await changes_nothing(on, node.return_(result)) == (400, "bad_envelope")
    frame = framed(one.sealer("delta").seal(work.encode_entries((work.Entry("so be"),))))
    assert await changes_nothing(on, node.stream(two, frame)) == (400, "bad_envelope")


async def test_nobody_touches_an_attempt_of_another_node(on: Scene) -> None:
    _, unit, other = await on.offered()
    attempt_id = unit.unit.attempt_id
    not_yours = (403, "not_your_attempt")
    assert await changes_nothing(on, other.post("ack", unit.acknowledgement, other.headers("ack", attempt_id))) == (
        not_yours
    )
    assert await changes_nothing(on, other.stream(unit, framed(b""))) == not_yours
    assert await changes_nothing(on, other.return_(other.result(unit))) == not_yours
    failed = messages.Result(attempt_id=attempt_id, outcome="failed", code="node.runtime_failed")
    assert await changes_nothing(on, other.return_(failed)) == not_yours


@pytest.mark.parametrize(
    "body",
    [b"{", b"{}", b'{"attempt_id":7,"sealed":""}', b'{"attempt_id":"att_x","sealed":""}',
     b'{"attempt_id":"att_' + b"0" * 32 + b'","sealed":"' + b"A" * 257 + b'"}'],
)  # fmt: skip
async def test_a_mistyped_acknowledgement_is_malformed(on: Scene, body: bytes) -> None:
    assert await changes_nothing(on, on.first.post("ack", body, on.first.headers("ack"))) == MALFORMED


# Stream ---------------------------------------------------------------------------------------------------------------


def framed(sealed: bytes) -> bytes:
    return len(sealed).to_bytes(4, "big") + sealed


def delta(sealer: Any, *texts: str) -> bytes:
    return framed(sealer.seal(work.encode_entries([work.Entry(text) for text in texts])))


@pytest.mark.parametrize(
    ("frame", "expected"),
    [
        ((2**31).to_bytes(4, "big"), MALFORMED),
        ((messages.FRAME_BYTES_MAX + 1).to_bytes(4, "big"), MALFORMED),
        (framed(b""), (400, "bad_envelope")),
        (framed(b"x" * 100), (400, "bad_envelope")),
    ],
)
async def test_a_frame_that_is_none_is_refused(on: Scene, frame: bytes, expected: tuple[int, str]) -> None:
    node, unit, _ = await on.offered()
    assert await changes_nothing(on, node.stream(unit, frame)) == expected


@pytest.mark.parametrize("plain", [b"", b"{}", b"[7]", b'[["a","b"]]', b"[" * 10_000, b'[["a",null,[["b"]]]]'])
async def test_a_delta_that_holds_no_entries_is_malformed(on: Scene, plain: bytes) -> None:
    node, unit, _ = await on.offered()
    assert await changes_nothing(on, node.stream(unit, framed(unit.sealer("delta").seal(plain)))) == MALFORMED


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"connection": "x"}, MALFORMED),
        ({"connection": str(2**32)}, MALFORMED),
        ({"offset": "-1"}, MALFORMED),
        ({"offset": "7"}, (409, "stream_offset")),
        ({"time": "0"}, STALE),
        ({"session": "0" * 32}, (401, "unknown_session")),
    ],
)
async def test_a_stream_whose_headers_are_wrong_is_refused(
    on: Scene, changes: dict[str, str], expected: tuple[int, str]
) -> None:
    node, unit, _ = await on.offered()
    headers = node.headers("stream", unit.unit.attempt_id, **{"connection": "0", "offset": "0", **changes})
    answer = node.post(f"stream/{unit.unit.attempt_id}", delta(unit.sealer("delta"), "so"), headers)
    assert await changes_nothing(on, answer) == expected


async def test_deltas_come_once_and_in_order(on: Scene) -> None:
    node, unit, _ = await on.offered()
    sealer = unit.sealer("delta")
    first, second = delta(sealer, "so"), delta(sealer, " be")
    assert await changes_nothing(on, node.stream(unit, second)) == (400, "bad_envelope")
    taken = await node.stream(unit, delta(unit.sealer("delta", 1), "so"), connection=1)
    assert taken.json()["received_bytes"] == 2
    # Neither the same stream nor an older one is heard again, nor a frame of another connection.
    assert await changes_nothing(on, node.stream(unit, first, connection=1, offset=2)) == (409, "stream_offset")
    assert await changes_nothing(on, node.stream(unit, first, connection=0, offset=2)) == (409, "stream_offset")
    assert await changes_nothing(on, node.stream(unit, first, connection=2, offset=2)) == (400, "bad_envelope")
    refused = await node.stream(unit, first, connection=3, offset=0)
    assert refused.headers[messages.HEADER_OFFSET] == "2"


async def test_a_stream_brings_no_more_than_was_asked_for(on: Scene) -> None:
    node, unit, _ = await on.offered()
    tokens = 64
    texts = ["x"] * work.entries_max(tokens)
    assert (await node.stream(unit, delta(unit.sealer("delta"), *texts))).status_code == 200
    more = node.stream(unit, delta(unit.sealer("delta", 1), "x"), connection=1, offset=len(texts))
    assert await changes_nothing(on, more) == (413, "body_too_large")


@pytest.mark.parametrize("ending", ["cancelled", "superseded"])
async def test_a_silent_stream_ends_with_what_it_was_for(
    on: Scene, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(operator, "STREAM_CHECK_SECONDS", 0.02)
    node, unit, _ = await on.offered()
    silence = asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield delta(unit.sealer("delta"), "so")
        await silence.wait()

    numbers = {"connection": "0", "offset": "0"}
    headers = node.headers("stream", unit.unit.attempt_id, **numbers)
    path = f"/operator/stream/{unit.unit.attempt_id}"
    silent = asyncio.create_task(node.http.post(path, content=body(), headers=headers))
    async with asyncio.timeout(20):
        while not (await on.everything())["text"].get(unit.unit.attempt_id):
            await asyncio.sleep(0.01)
        if ending == "cancelled":
            await on.clear()
        else:
            await node.stream(unit, delta(unit.sealer("delta", 1), " be"), connection=1, offset=2)
        expected = (410, "attempt_closed") if ending == "cancelled" else (409, "stream_offset")
        assert code_of(await silent) == expected
    silence.set()


# Result ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"{}", b'{"attempt_id":"att_x","outcome":"completed"}', b'{"x":' + b"[" * 100_000,
     b'{"attempt_id":"att_' + b"0" * 32 + b'","outcome":"perfect"}',
     b'{"attempt_id":"att_' + b"0" * 32 + b'","outcome":"failed","code":"node.lazy"}'],
)  # fmt: skip
async def test_a_mistyped_result_is_malformed(on: Scene, body: bytes) -> None:
    assert await changes_nothing(on, on.first.post("result", body, on.first.headers("ack"))) == MALFORMED


async def test_a_result_without_end_is_cut_at_the_bound(on: Scene) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 3 * messages.RESULT_BYTES_MAX:
            sent += 2**20
            yield b" " * 2**20

    answer = on.first.http.post("/operator/result", content=endless(), headers=on.first.headers("ack"))
    assert await changes_nothing(on, answer) == (413, "body_too_large")
    assert sent < messages.RESULT_BYTES_MAX + 2**22


async def test_only_a_node_in_its_session_may_send_a_result_at_all(on: Scene) -> None:
    sent = 0

    async def counted() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(64):
            sent += 2**20
            yield b" " * 2**20

    headers = on.first.headers("ack", session="0" * 32)
    answer = on.first.http.post("/operator/result", content=counted(), headers=headers)
    assert await changes_nothing(on, answer) == (401, "unknown_session")
    assert sent == 0


@pytest.mark.parametrize(
    ("sealed", "expected"),
    [("", (400, "bad_envelope")), ("AAAA", (400, "bad_envelope")), ("not base64!", MALFORMED)],
)
async def test_a_result_that_is_not_sealed_is_refused(on: Scene, sealed: str, expected: tuple[int, str]) -> None:
    node, unit, _ = await on.offered()
    assert await changes_nothing(on, node.return_(node.result(unit, result=sealed))) == expected


async def test_a_sealed_result_that_holds_none_is_malformed(on: Scene) -> None:
    node, unit, _ = await on.offered()
    for plain in (b"", b"{}", b"[" * 50_000, b'{"content":7}'):
        sealed = to_base64url(unit.sealer("result").seal(plain))
        assert await changes_nothing(on, node.return_(node.result(unit, result=sealed))) == MALFORMED


async def test_a_refusal_of_work_is_signed_for_its_attempt(on: Scene) -> None:
    node, unit, _ = await on.offered()
    failed = messages.Result(attempt_id=unit.unit.attempt_id, outcome="failed", code="node.runtime_failed")
    for headers in (node.headers("ack", "att_" + "0" * 32), node.headers("stream", unit.unit.attempt_id)):
        assert await changes_nothing(on, node.post("result", failed, headers)) == BAD_SIGNATURE


async def test_what_comes_after_the_end_is_dropped(on: Scene) -> None:
    node, unit, _ = await on.offered()
    await node.acknowledge(unit)
    await on.clear()
    over = (410, "attempt_closed")
    assert await changes_nothing(on, node.return_(node.result(unit))) == over
    assert await changes_nothing(on, node.acknowledge(unit)) == over
    assert await changes_nothing(on, node.stream(unit, delta(unit.sealer("delta"), "so"))) == over
    failed = messages.Result(attempt_id=unit.unit.attempt_id, outcome="failed", code="node.runtime_failed")
    assert await changes_nothing(on, node.return_(failed)) == over


async def test_a_result_is_taken_once_and_answered_alike_every_time(on: Scene) -> None:
    node, unit, other = await on.offered()
    result = node.result(unit)
    first = await node.return_(result)
    assert first.json() == {"attempt_id": unit.unit.attempt_id, "accepted": True, "reason": ""}
    before = await on.everything()
    assert before["chain"][0] >= 1
    assert (await node.return_(result)).json() == first.json()
    # Another content for what is answered already changes nothing either.
    again = node.result(unit, content=work.ResultContent(text="not so", finish_reason="stop"))
    assert (await node.return_(again)).json() == first.json()
    assert await on.everything() == before
    assert await changes_nothing(on, other.return_(result)) == (403, "not_your_attempt")


def altered_proof(node: HandNode, unit: Opened) -> messages.Result:
    return node.result(unit, poe=to_hex(hashlib.sha256(b"another").digest()))


def missing_proof(node: HandNode, unit: Opened) -> messages.Result:
    return node.result(unit, poe="")


def signature_for_another_request(node: HandNode, unit: Opened) -> messages.Result:
    return node.result(unit, signature=to_hex(node.key.sign(signing.result_text("req_" + "0" * 64))))


def signature_with_high_s(node: HandNode, unit: Opened) -> messages.Result:
    return node.result(unit, signature=with_high_s(node.result(unit).signature))


def proof_signature_of_another(node: HandNode, unit: Opened) -> messages.Result:
    other = work.ResultContent(text="so be it not", finish_reason="stop")
    return node.result(unit, poe_signature=node.result(unit, content=other).poe_signature)


@pytest.mark.parametrize(
    ("forge", "code"),
    [
        (altered_proof, "poe_mismatch"),
        (missing_proof, "malformed_poe"),
        (signature_for_another_request, "bad_signature"),
        (signature_with_high_s, "bad_signature"),
        (proof_signature_of_another, "bad_signature"),
    ],
)
async def test_a_result_that_fails_verification_is_charged_to_nobody_and_goes_elsewhere(
    on: Scene, tmp_path: Any, forge: Callable[[HandNode, Opened], messages.Result], code: str
) -> None:
    async with scene(tmp_path) as fresh:
        node, unit, other = await fresh.offered()
        before = await fresh.everything()
        answer = (await node.return_(forge(node, unit))).json()
        after = await fresh.everything()
        assert (answer["accepted"], answer["reason"].partition(":")[0]) == (False, code)
        assert after["balances in memory"] == before["balances in memory"]
        assert after["chain"] == before["chain"]
        # The other node gets the same request as a new attempt, and its answer counts.
        second = await other.take()
        assert (second.unit.unit_id, second.unit.attempt_number) == (unit.unit.unit_id, 2)
        assert (await other.return_(other.result(second))).json()["accepted"] is True
        view = await fresh.coordinator.view(fresh.key, unit.unit.unit_id)
        assert (view.state, view.result is not None and view.result.text) == ("completed", CONTENT.text)
        assert (await node.return_(node.result(unit))).json()["accepted"] is False


# Uptime ---------------------------------------------------------------------------------------------------------------

REFUSED = (409, "receipt_refused")


def proof_of(on: Scene, *, node_id: int | None = None, age_ms: int = 0, **changes: Any) -> messages.UptimeProof:
    """One that the coordinator signed for the first node, in every point that is not given otherwise."""
    node = on.first
    unix_ms = node.now() - age_ms
    text = signing.receipt_text(CHAIN_ID, node_id or node.node_id, node.session, unix_ms)
    signature = to_hex(on.coordinator.secrets.signer.sign(text))
    proof = messages.UptimeProof(session=node.session, unix_ms=unix_ms, signature=signature)
    return msgspec.structs.replace(proof, **changes)


async def restore(on: Scene, *proofs: messages.UptimeProof) -> tuple[int, str]:
    body = messages.RestoreUptime(proofs=proofs)
    return await changes_nothing(on, on.first.post("uptime", body, on.first.headers("uptime")))


HOUR_MS = 3_600_000


async def test_a_receipt_that_is_not_ours_of_this_node_and_of_late_restores_nothing(on: Scene) -> None:
    good = proof_of(on, age_ms=HOUR_MS)
    stranger = to_hex(signing.NodeKey.generate().sign("parallelix"))
    refused = {
        "signed by nobody we know": msgspec.structs.replace(good, signature=stranger),
        "another node's": proof_of(on, node_id=on.second.node_id, age_ms=HOUR_MS),
        "of another session": msgspec.structs.replace(good, session="ab" * 16),
        "of another time": msgspec.structs.replace(good, unix_ms=good.unix_ms + 1),
        "too old": proof_of(on, age_ms=4 * HOUR_MS + 10_000),
        "of tomorrow": proof_of(on, age_ms=-24 * HOUR_MS),
        "its twin in another form": msgspec.structs.replace(good, signature=with_high_s(good.signature)),
    }
    for name, proof in refused.items():
        assert await restore(on, good, proof) == REFUSED, name
    uptime = on.coordinator.engine.uptime
    assert uptime.is_open(on.first.node_id, good.unix_ms // 10_000), "one bad receipt spoils the call"


async def test_more_receipts_than_of_ten_minutes_are_malformed(on: Scene) -> None:
    proof = proof_of(on)
    assert await restore(on, *[proof] * (messages.UPTIME_PROOFS_MAX + 1)) == MALFORMED
    assert await changes_nothing(on, on.first.post("uptime", b"[]", on.first.headers("uptime"))) == MALFORMED


async def test_receipts_are_taken_from_the_node_itself_only(on: Scene) -> None:
    body = messages.RestoreUptime(proofs=(proof_of(on),))
    others = on.second.headers("uptime") | {messages.HEADER_NODE: str(on.first.node_id)}
    assert (await changes_nothing(on, on.first.post("uptime", body, others)))[0] == 401
    for_a_heartbeat = on.first.headers("heartbeat")
    assert await changes_nothing(on, on.first.post("uptime", body, for_a_heartbeat)) == BAD_SIGNATURE
