"""What the client makes of answers, refusals and broken lines, told to it byte by byte."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise

import httpx
import pytest
from client_scene import Pauses, Script
from hypothesis import given
from hypothesis import strategies as some

from parallelix.client import BadAnswer, Client, Delta, Ended, Refused, Retry, Unavailable, Unreachable, chat, sse
from parallelix.client.errors import ConfigRefused
from parallelix.client.retry import Series

URL = "http://127.0.0.1:1"
REQUEST = "req_" + "0" * 64
END = (
    'id: 1.9\nevent: completed\ndata: {"id":"req_0","state":"completed","reason":"","finish_reason":"stop",'
    '"tool_calls":[],"usage":{"prompt_tokens":1,"completion_tokens":2},"charge_wei":"5","record_hash":"0x00",'
    '"receipt":null,"audit":"off"}\n\n'
)
ACCOUNT = (
    '{"account":"a","available_wei":"1","held_wei":"0","open_requests":0,"key":{"id":"k","name":"","concurrency":0,'
    '"requests_per_minute":0,"budget_wei":"0","spent_wei":"0","created_at":1,"expires_at":null,"revoked":false}}'
)


def refusal(status: int, code: str = "overloaded", **headers: str) -> httpx.Response:
    return httpx.Response(status, json={"error": code, "message": "try again"}, headers=headers)


def account() -> httpx.Response:
    return httpx.Response(200, content=ACCOUNT)


class CutStream(httpx.AsyncByteStream):
    """An answer whose line breaks after some bytes."""

    def __init__(self, text: str) -> None:
        self._text = text

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield self._text.encode()
        raise httpx.ReadError("cut")


def cut(text: str) -> httpx.Response:
    return httpx.Response(200, stream=CutStream(text))


def delta(offset: int, text: str, *, attempt: int = 1) -> str:
    place = f"{attempt}.{offset + len(text.encode())}"
    return f'id: {place}\nevent: delta\ndata: {{"attempt":{attempt},"offset":{offset},"text":"{text}"}}\n\n'


async def test_what_may_be_repeated_is_repeated_and_never_sooner_than_asked() -> None:
    script = Script(refusal(503, **{"retry-after": "7"}), refusal(429), httpx.ReadError("cut"), refusal(502), account())
    pauses = Pauses()
    async with Client(URL, "prlx_x", transport=script, sleep=pauses) as client:
        assert (await client.account()).account == "a"
    assert len(pauses.seconds) == 4
    assert 7 <= pauses.seconds[0] <= 7.25
    assert all(seconds <= 4 for seconds in pauses.seconds[1:])


async def test_whoever_waits_is_told_why() -> None:
    script = Script(refusal(503, "vault_halted"), httpx.ConnectError("refused"), account())
    told: list[str] = []
    async with Client(URL, "prlx_x", transport=script, sleep=Pauses(), told=told.append) as client:
        await client.account()
    assert told[0].startswith("vault_halted: ")
    assert told[1] == f"{URL} does not answer yet"


async def test_a_refusal_that_would_come_again_is_not_repeated() -> None:
    for status in (400, 401, 402, 404, 409, 422, 500):
        script = Script(refusal(status, "some_code"))
        async with Client(URL, "prlx_x", transport=script, sleep=Pauses()) as client:
            with pytest.raises(Refused) as refused:
                await client.account()
        assert (refused.value.status, refused.value.code, len(script.calls)) == (status, "some_code", 1)


async def test_it_gives_up_in_the_end_and_says_what_it_met() -> None:
    pauses = Pauses()
    script = Script(*[httpx.ConnectError("refused")] * 4)
    async with Client(URL, "prlx_x", transport=script, sleep=pauses, retry=Retry(tries_max=4)) as client:
        with pytest.raises(Unreachable, match=r"refused.*4 tries"):
            await client.account()
    assert len(pauses.seconds) == 3
    script = Script(refusal(503, **{"retry-after": "3600"}))
    async with Client(URL, "prlx_x", transport=script, sleep=pauses) as client:
        with pytest.raises(Unavailable):
            await client.account()
    assert len(pauses.seconds) == 3


async def test_a_certificate_that_is_refused_is_not_tried_again() -> None:
    untrusted = httpx.ConnectError("certificate verify failed")
    untrusted.__cause__ = ssl.SSLCertVerificationError("self-signed")
    script = Script(untrusted)
    async with Client("https://localhost:1", "prlx_x", transport=script, sleep=Pauses()) as client:
        with pytest.raises(Unreachable):
            await client.account()


async def test_every_try_of_a_create_carries_the_same_key() -> None:
    script = Script(httpx.ReadError("cut"), refusal(503), refusal(400, "malformed"))
    async with Client(URL, "prlx_x", transport=script, sleep=Pauses()) as client:
        with pytest.raises(Refused):
            await client.create(chat("hello", model="m"))
    keys = {call.headers["idempotency-key"] for call in script.calls}
    assert (len(script.calls), len(keys), len(keys.pop())) == (3, 1, 32)
    assert len({call.content for call in script.calls}) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"\xff", b'{"account":1}', b""])
async def test_an_answer_of_something_else_is_named_as_such(body: bytes) -> None:
    async with Client(URL, "prlx_x", transport=Script(httpx.Response(200, content=body))) as client:
        with pytest.raises(BadAnswer, match="coordinator"):
            await client.account()


@pytest.mark.parametrize("body", [b"<html>", b"[]", b"{}", b"\xff", b'{"error":{}}', b'{"error":[]}'])
async def test_a_refusal_of_something_on_the_way_keeps_its_status(body: bytes) -> None:
    async with Client(URL, "prlx_x", transport=Script(httpx.Response(418, content=body))) as client:
        with pytest.raises(Refused) as refused:
            await client.account()
    assert (refused.value.code, refused.value.status) == ("http_418", 418)


async def test_pieces_cut_otherwise_after_a_break_are_not_shown_twice() -> None:
    script = Script(
        cut(delta(0, "wai")),
        cut(delta(0, "w\u00e4i".replace("\u00e4", "a")) + delta(3, "t h")),
        cut(delta(2, "it here")),
        httpx.Response(200, content=END),
    )
    async with Client(URL, "prlx_x", transport=script, sleep=Pauses()) as client:
        events = [event async for event in client.follow(REQUEST)]
    assert [(event.offset_bytes, event.text) for event in events if isinstance(event, Delta)] == [
        (0, "wai"), (3, "t h"), (6, "ere"),
    ]  # fmt: skip
    assert isinstance(events[-1], Ended)
    assert [call.headers.get("last-event-id") for call in script.calls] == [None, "1.3", "1.6", "1.9"]


async def test_text_with_a_hole_in_it_is_asked_for_again_but_not_for_ever() -> None:
    holes = [httpx.Response(200, content=delta(9, "later")) for _ in range(3)]
    script = Script(cut(delta(0, "wait")), *holes)
    async with Client(URL, "prlx_x", transport=script, sleep=Pauses(), retry=Retry(tries_max=4)) as client:
        shown: list[object] = []
        with pytest.raises(Unreachable):
            async for event in client.follow(REQUEST):
                shown.append(event)
    assert len(shown) == 1


async def test_a_kind_of_event_that_it_does_not_know_is_passed_over() -> None:
    text = (
        'event: audit.passed\ndata: {"x":1}\n\n: a comment\n\nevent: held\ndata: {"attempt":0,"reason":"r"}\n\n' + END
    )
    async with Client(URL, "prlx_x", transport=Script(httpx.Response(200, content=text))) as client:
        assert [type(event).__name__ async for event in client.follow(REQUEST)] == ["Progress", "Ended"]


async def chunks_of(pieces: Sequence[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


@given(cuts=some.lists(some.integers(0, 200), max_size=12), ending=some.sampled_from(["\n", "\r\n"]))
async def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int], ending: str) -> None:
    lines = ["id: 1.3", "event: delta", "data: {", "data: \u20ac}", "", ": alive", "", "data:x", "", "data: cut off"]
    data = ending.join(lines).encode()
    places = sorted({0, *(min(cut, len(data)) for cut in cuts), len(data)})
    pieces = [data[start:end] for start, end in pairwise(places)]
    found = [event async for event in sse.read_events(chunks_of(pieces))]
    assert [(event.name, event.identity, event.data.decode()) for event in found] == [
        ("delta", "1.3", "{\n\u20ac}"), ("", "1.3", "x"),
    ]  # fmt: skip


async def test_an_event_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sse, "EVENT_BYTES_MAX", 1000)
    for line in (b"data: " + b"x" * 2000, b"data: xxxxxxx\n" * 200):
        with pytest.raises(BadAnswer, match="1000 bytes"):
            _ = [event async for event in sse.read_events(chunks_of([line]))]


@pytest.mark.parametrize(
    "url",
    ["", "parallelix.io", "ftp://parallelix.io", "http://parallelix.io/api", "https://me:secret@parallelix.io",
     "https://parallelix.io/?x=1", "http://[::1", "http://127.0.0.1:99999"],
)  # fmt: skip
def test_a_url_that_would_leak_or_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        Client(url, "prlx_x")
    assert "secret" not in refused.value.message


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_url_as_openais_clients_want_it_is_understood(suffix: str) -> None:
    assert Client(f"https://parallelix.io/api{suffix}").base_url == "https://parallelix.io/api"


def test_a_key_that_cannot_travel_is_refused_unseen() -> None:
    for key in ("prlx_a b", "prlx_a\nb", "prlx_\u00fc"):
        with pytest.raises(ConfigRefused) as refused:
            Client(URL, key)
        assert key not in refused.value.message


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0])
def test_waits_grow_to_a_bound_and_start_over_after_a_success(factor: float) -> None:
    def uniform(low: float, high: float) -> float:
        return low + factor * (high - low)

    series = Series(Retry(tries_max=6, first_seconds=1, wait_seconds_max=4), uniform=uniform)
    assert [series.next_seconds() for _ in range(6)] == [
        1 * factor,
        2 * factor,
        4 * factor,
        4 * factor,
        4 * factor,
        None,
    ]
    series.reset()
    assert series.next_seconds(3) == 3 + factor
