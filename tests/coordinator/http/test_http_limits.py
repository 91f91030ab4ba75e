"""What arrives too big, too slow, too often or not as HTTP is refused, and the server serves on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from http_network import Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime
from uvicorn.server import ServerState

from parallelix.coordinator.errors import Unavailable
from parallelix.coordinator.http import limits, server
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.room import Room
from parallelix.protocol.requests import REQUEST_BODY_BYTES_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/requests", "/v1/quote", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
HEALTH = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
GOOD: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def code_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    return error if isinstance(error, str) else error["code"]


def port_of(network: Network) -> int:
    return int(network.url.rpartition(":")[2])


async def talk(network: Network, *parts: bytes) -> bytes:
    """Sends raw bytes and gives all that the server says before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(network))
    try:
        for part in parts:
            writer.write(part)
            await writer.drain()
        async with asyncio.timeout(20):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


def post(client: httpx.AsyncClient, path: str, *fields: str) -> bytes:
    """The head of a call that the client's key makes."""
    lines = [f"POST {path} HTTP/1.1", "host: x", f"authorization: {client.headers['authorization']}",
             "content-type: application/json", *fields, "", ""]  # fmt: skip
    return "\r\n".join(lines).encode()


async def still_serves(client: httpx.AsyncClient) -> bool:
    return (await client.post("/v1/chat/completions", json=GOOD)).status_code == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_that_is_announced_too_large_is_refused_before_it_comes(
    network: Network, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(server, "REST_SECONDS_MAX", 0.05)
    answer = await talk(network, post(client, path, f"content-length: {REQUEST_BODY_BYTES_MAX + 1}") + b"{")
    assert answer.startswith(b"HTTP/1.1 413")
    assert b"body_too_large" in answer


async def test_a_body_without_an_end_is_cut_at_the_bound(client: httpx.AsyncClient) -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while sent < 64 * 2**20:
            sent += 2**16
            yield b" " * 2**16

    with_type = {"content-type": "application/json"}
    try:
        response = await client.post("/v1/requests", content=endless(), headers=with_type)
    except httpx.TransportError:
        pass
    else:
        assert (response.status_code, code_of(response)) == (413, "body_too_large")
    # What is beyond lay in the sockets' buffers.
    assert sent < REQUEST_BODY_BYTES_MAX + server.REST_BYTES_MAX + 16 * 2**20
    assert await still_serves(client)


async def test_a_body_that_does_not_arrive_is_given_up(
    network: Network, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "BODY_SECONDS_MAX", 0.05)
    monkeypatch.setattr(server, "REST_SECONDS_MAX", 0.05)
    answer = await talk(network, post(client, "/v1/requests", "content-length: 100") + b"{")
    assert answer.startswith(b"HTTP/1.1 408")
    assert b'"error":"request_timeout"' in answer


@pytest.mark.parametrize("started", [b"", b"GET /healthz HTTP/1.1\r\nhost: x\r\n"])
async def test_a_head_that_does_not_arrive_is_given_up(
    network: Network, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch, started: bytes
) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.05)
    assert (await talk(network, started)).startswith(b"HTTP/1.1 408")
    # Also on a connection that has served a call before.
    whole = b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n"
    answer = await talk(network, whole + b"GET /hea")
    assert answer.startswith(b"HTTP/1.1 200")
    assert b"HTTP/1.1 408" in answer
    assert await still_serves(client)


async def test_a_body_that_nobody_waits_for_does_not_hold_the_connection(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "REST_SECONDS_MAX", 0.05)
    head = b"POST /v1/requests HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    assert (await talk(network, head)).startswith(b"HTTP/1.1 401")


@pytest.mark.parametrize("filler", [b"x: " + b"y" * 2**17, b"x" * 2**17, b"a: b\r\n" * 2**14])
async def test_a_head_that_is_too_large_is_refused(network: Network, filler: bytes) -> None:
    answer = await talk(network, b"GET /healthz HTTP/1.1\r\n" + filler)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "raw", [b"\x00" * 64, b"hello\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\x01"]
)
async def test_bytes_that_are_no_http_are_refused(network: Network, client: httpx.AsyncClient, raw: bytes) -> None:
    answer = await talk(network, raw)
    assert answer.startswith(b"HTTP/1.1 400")
    assert b'"error":"malformed"' in answer
    assert await still_serves(client)


async def test_connections_are_capped(start_network: StartNetwork, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "connections_max", lambda: 2)
    async with start_network(TalkingRuntime(), nodes=0) as network:
        kept = [await asyncio.open_connection("127.0.0.1", port_of(network)) for _ in range(2)]
        assert await talk(network, HEALTH) == b""
        for _, writer in kept:
            writer.close()

        async def is_served() -> bool:
            return (await talk(network, HEALTH.replace(b"1.1", b"1.0"))).startswith(b"HTTP/1.1 200")

        await eventually(is_served)


async def test_an_address_opens_no_more_than_its_share(network: Network) -> None:
    config = server.BoundedConfig(build_app(network.coordinator), connections_per_address_max=2)
    state = ServerState()
    here, elsewhere = [Wire("127.0.0.1") for _ in range(3)], [Wire("203.0.113.5") for _ in range(3)]
    protocols = [server.BoundedProtocol(config, state, {}) for _ in (*here, *elsewhere)]
    for protocol, wire in zip(protocols, (*here, *elsewhere), strict=True):
        protocol.connection_made(wire)
    assert [wire.aborted for wire in (*here, *elsewhere)] == [False] * 5 + [True]
    for protocol in protocols:
        protocol.connection_lost(None)
    assert not config.addresses


def connected(network: Network, wire: Wire) -> server.BoundedProtocol:
    config = server.BoundedConfig(build_app(network.coordinator), connections_per_address_max=2)
    protocol = server.BoundedProtocol(config, ServerState(), {})
    protocol.connection_made(wire)
    return protocol


class Wire(asyncio.Transport):
    """A connection from an address that no test machine has."""

    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 5000), "sockname": ("127.0.0.1", 80)})
        self.aborted = False
        self.unread_bytes = [80_000]
        """What lies unread each time that it is asked; the last stays."""

    def get_write_buffer_size(self) -> int:
        return self.unread_bytes[0] if len(self.unread_bytes) == 1 else self.unread_bytes.pop(0)

    def abort(self) -> None:
        self.aborted = True

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return self.aborted


async def test_a_request_before_its_turn_does_not_harm_the_answer_under_way(
    network: Network, client: httpx.AsyncClient
) -> None:
    body = msgspec.json.encode(GOOD)
    whole = post(client, "/v1/chat/completions", f"content-length: {len(body)}") + body
    for early in (HEALTH * 1000, b"no http at all", b"x" * 2**17):
        answer = await talk(network, whole + early)
        assert answer.count(b"HTTP/1.1 200") == answer.count(b"HTTP/1.1") == 1
        assert b"connection: close" in answer
        assert b'"content":"hi"' in answer


async def test_what_stands_after_a_chunked_body_is_no_header(network: Network, client: httpx.AsyncClient) -> None:
    body = msgspec.json.encode(GOOD)
    key = client.headers["authorization"].encode()
    chunked = b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n%x\r\n%s\r\n0\r\n" % (len(body), body)
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    smuggled = await talk(network, head + chunked + b"authorization: " + key + b"\r\n\r\n")
    assert b"missing_api_key" in smuggled
    assert (await talk(network, head + b"authorization: " + key + b"\r\n" + chunked + b"\r\n")).startswith(
        b"HTTP/1.1 200"
    )


@pytest.mark.parametrize("endless", [b"x: " + b"y" * 2**20, b"x: y\r\n" * 2**18])
async def test_fields_after_a_body_have_a_bound(network: Network, client: httpx.AsyncClient, endless: bytes) -> None:
    answer = await talk(
        network, post(client, "/v1/quote", "transfer-encoding: chunked") + b"2\r\n{}\r\n0\r\n" + endless
    )
    assert answer == b"" or b'"error":"head_too_large"' in answer
    assert await still_serves(client)


@pytest.mark.parametrize(
    "fields",
    ["content-length: 5\r\ncontent-length: 6", "content-length: 5\r\ntransfer-encoding: chunked", "content-length: -5",
     "content-length: 5 5", "content-length: 99999999999999999999", "transfer-encoding: chunked, chunked",
     "transfer-encoding: identity", "transfer-encoding: chunked\r\n\r\nzz\r\n", "a : b", "a: b\r\n folded",
     "a: \x00", "connection: upgrade\r\nupgrade: h2c\r\ncontent-length: 5"],
)  # fmt: skip
async def test_a_message_of_unclear_length_or_form_is_refused_and_ends_the_connection(
    network: Network, client: httpx.AsyncClient, fields: str
) -> None:
    answer = await talk(network, post(client, "/v1/quote", fields) + b"hello" + HEALTH)
    assert answer.startswith(b"HTTP/1.1 400")
    assert answer.count(b"content-type") == 1
    assert b'"error":"malformed"' in answer


@pytest.mark.parametrize("name", ["authorization", "content-type", "idempotency-key", "content-encoding"])
async def test_a_header_given_twice_is_refused(client: httpx.AsyncClient, name: str) -> None:
    twice = [("content-type", "application/json"), (name, "identity"), (name, "other")]
    response = await client.post("/v1/quote", content=b"{}", headers=twice)
    assert (response.status_code, code_of(response)) == (400, "invalid_request")
    assert name in response.text


async def test_empty_lines_do_not_hold_a_connection(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "HEAD_SECONDS_MAX", 0.1)
    reader, writer = await asyncio.open_connection("127.0.0.1", port_of(network))
    writer.write(HEALTH)
    assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
    writer.write(b"\r\n")
    async with asyncio.timeout(20):
        assert b"HTTP/1.1 408" in await reader.read()
    writer.close()


async def test_a_reader_that_stopped_reading_is_let_go(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_STALL_SECONDS_MAX", 0.02)
    wire = Wire("203.0.113.5")
    protocol = connected(network, wire)
    wire.unread_bytes = [80_000, 70_000, 60_000, 60_000]
    protocol.pause_writing()

    async def is_let_go() -> bool:
        return wire.aborted

    await eventually(is_let_go)
    # It was given as long as it went on reading.
    assert wire.unread_bytes == [60_000]
    protocol.connection_lost(None)


async def test_a_reader_that_reads_on_is_kept(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "WRITE_STALL_SECONDS_MAX", 0.02)
    wire = Wire("203.0.113.5")
    protocol = connected(network, wire)
    protocol.pause_writing()
    protocol.resume_writing()
    await asyncio.sleep(0.06)
    assert not wire.aborted
    protocol.connection_lost(None)


@pytest.mark.parametrize(
    "raw", ["GET /v1/requests/\u00fc HTTP/1.1", "CONNECT x:80 HTTP/1.1", "GET /healthz HTTP/1.1\nhost: x"]
)
async def test_a_request_line_that_is_none_is_refused(network: Network, raw: str) -> None:
    assert (await talk(network, raw.encode() + b"\r\nhost: x\r\n\r\n")).startswith(b"HTTP/1.1 400")


@pytest.mark.parametrize("path", PATHS)
async def test_a_large_body_is_read_like_a_small_one(client: httpx.AsyncClient, path: str) -> None:
    kind = {"content-type": "application/json"}
    body = b'{"model":"talker","colour":[' + b'{"a":1},' * 20_000 + b"7]}"
    response = await client.post(path, content=body, headers=kind)
    assert response.status_code == 400
    assert "colour" in response.text
    text = msgspec.json.encode({"model": MODEL, "input": ["word " * 20] * 200})
    large = await client.post("/v1/embeddings", content=text + b" " * 2**17, headers=kind)
    assert (large.status_code, len(large.json()["data"])) == (200, 200)


async def test_bodies_on_their_way_have_one_bound_over_all_connections() -> None:
    room = Room(100)
    with room.part() as first, room.part() as second:
        first.take(60)
        second.take(40)
        with pytest.raises(Unavailable) as caught:
            second.take(1)
        assert (caught.value.code, caught.value.retry_after_seconds) == ("overloaded", 5)
    assert room.taken_bytes == 0


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_compressed_body_is_refused(client: httpx.AsyncClient, encoding: str) -> None:
    bomb = gzip.compress(b" " * 2**20)
    headers = {"content-type": "application/json", "content-encoding": encoding}
    for path in PATHS:
        response = await client.post(path, content=bomb, headers=headers)
        assert (response.status_code, code_of(response)) == (415, "unsupported_encoding")


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data"])
async def test_a_body_of_another_type_is_refused(client: httpx.AsyncClient, kind: str) -> None:
    response = await client.post("/v1/requests", content=msgspec.json.encode(GOOD), headers={"content-type": kind})
    assert (response.status_code, code_of(response)) == (415, "unsupported_media_type")


async def test_a_charset_beside_the_type_is_fine(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/json; charset=utf-8"}
    response = await client.post("/v1/quote", content=msgspec.json.encode(GOOD), headers=headers)
    assert response.status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"null", b"NaN", b'{"model":1e999}', b'{"model":"\\ud800"}', b'{"model":"\xff"}', b"[" * 100_000,
     b'{"a":' * 50_000, b'{"model":' + b"9" * 10_000 + b"}", b'{"model":"a","model":"b"}', b"\xef\xbb\xbf{}"],
)  # fmt: skip
async def test_a_body_that_is_no_proper_json_is_malformed(client: httpx.AsyncClient, path: str, body: bytes) -> None:
    response = await client.post(path, content=body, headers={"content-type": "application/json"})
    assert (response.status_code, code_of(response)) == (400, "malformed")


async def test_an_unknown_path_or_method_is_refused_in_the_shape_of_its_neighbours(client: httpx.AsyncClient) -> None:
    native = await client.put("/v1/requests")
    openai = await client.get("/v1/chat/completions")
    assert (native.status_code, native.json()["error"]) == (405, "method_not_allowed")
    assert "POST" in native.headers["allow"]
    assert (openai.status_code, openai.json()["error"]["code"]) == (405, "method_not_allowed")
