"""What arrives too big, too slow, too often or not as HTTP is refused, and the server serves on."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator
from typing import Any

import httpx
import msgspec
import pytest
from http_network import Network
from talking_runtime import MODEL

from parallelix.coordinator.http import limits, server
from parallelix.protocol.requests import REQUEST_BODY_BYTES_MAX

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = ("/v1/requests", "/v1/quote", "/v1/chat/completions", "/v1/completions", "/v1/embeddings")
GOOD: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}]}


def code_of(response: httpx.Response) -> str:
    error = response.json()["error"]
    return error if isinstance(error, str) else error["code"]


async def talk(network: Network, *parts: bytes) -> bytes:
    """Sends raw bytes and gives all that the server says before it closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(network.url.rpartition(":")[2]))
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


async def test_connections_are_capped(
    network: Network, client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.BoundedConfig, "connections_max", 0, raising=False)
    protocol_config = server.BoundedConfig(app=None)  # type: ignore[arg-type]
    assert protocol_config.connections_max == server.connections_max()
    assert protocol_config.connections_max <= server.CONNECTIONS_MAX


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
