"""Whatever an endpoint answers, it becomes one of our errors, and nothing of web3's gets through."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from aiohttp import web
from chain_scene import key

import services
from parallelix.chain.bindings.prlx import PRLXViews
from parallelix.chain.errors import BadArgument, BadResult, ChainError, ChainUnreachable, RpcRefused, UnknownRevert
from parallelix.chain.ports import Block
from parallelix.chain.rpc import Rpc, connected

SOMEBODY = key("somebody").address
HASH = "0x" + "11" * 32
QUESTIONS: dict[str, Callable[[Rpc], Any]] = {
    "chain_id": lambda rpc: rpc.chain_id(),
    "block_number": lambda rpc: rpc.block_number(),
    "block_time": lambda rpc: rpc.block_time(),
    "code": lambda rpc: rpc.code(SOMEBODY),
    "balance": lambda rpc: rpc.balance_wei(SOMEBODY),
    "nonce": lambda rpc: rpc.nonce(SOMEBODY),
    "fees": lambda rpc: rpc.fees(),
    "call": lambda rpc: rpc.call(SOMEBODY, b""),
    "estimate_gas": lambda rpc: rpc.estimate_gas(SOMEBODY, b"", sender=SOMEBODY),
    "send_raw": lambda rpc: rpc.send_raw(b"\x02"),
    "receipt": lambda rpc: rpc.receipt(HASH),
    "logs": lambda rpc: rpc.logs(addresses=[SOMEBODY], topics=[], first_block=0, last_block=1),
    "logs_of_block": lambda rpc: rpc.logs_of_block(HASH, addresses=[SOMEBODY], topics=[]),
    "block": lambda rpc: rpc.block(1),
}


class Endpoint:
    """Answers everything alike."""

    def __init__(self) -> None:
        self.status = 200
        self.body = b""
        self.url = ""
        self.location = ""

    async def answer(self, _request: web.Request) -> web.Response:
        if self.location:
            return web.Response(status=308, headers={"location": self.location})
        return web.Response(status=self.status, body=self.body, content_type="application/json")

    def result(self, value: object) -> None:
        self.body = json.dumps({"jsonrpc": "2.0", "id": 1, "result": value}).encode()

    def error(self, error: object) -> None:
        self.body = json.dumps({"jsonrpc": "2.0", "id": 1, "error": error}).encode()


@pytest.fixture
async def endpoint() -> AsyncIterator[Endpoint]:
    found = Endpoint()
    application = web.Application()
    application.router.add_post("/{path:.*}", found.answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    port = services.free_port()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    found.url = f"http://user:password@127.0.0.1:{port}/secret"
    yield found
    await runner.cleanup()


@pytest.fixture
async def asking(endpoint: Endpoint) -> AsyncIterator[Rpc]:
    async with connected(endpoint.url, tries=1) as rpc:
        yield rpc


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize("body", [b"", b"<html>", b"\xff", b"null", b"[]", b"{}", b'{"result"', b"[" * 50_000])
async def test_what_is_no_json_rpc_is_an_endpoint_that_cannot_be_reached(
    endpoint: Endpoint, asking: Rpc, question: str, body: bytes
) -> None:
    endpoint.body = body

    with pytest.raises(ChainUnreachable) as caught:
        await QUESTIONS[question](asking)

    assert "secret" not in caught.value.message and "password" not in caught.value.message


@pytest.mark.parametrize("question", sorted(set(QUESTIONS) - {"block", "receipt", "send_raw"}))
@pytest.mark.parametrize("value", [None, {}, "nonsense", [1], "0x", 1.5, True])
async def test_a_result_of_another_kind_never_breaks_us(
    endpoint: Endpoint, asking: Rpc, question: str, value: object
) -> None:
    endpoint.result(value)

    try:
        found = await QUESTIONS[question](asking)
    except ChainError:
        return
    assert isinstance(found, int | bytes | list), found


@pytest.mark.parametrize("question", QUESTIONS)
@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"code": -32005, "message": "daily request count exceeded"}, "daily request count exceeded"),
        ({"code": -32000, "message": "x" * 10_000}, "xxx"),
    ],
)
async def test_the_endpoints_own_errors_are_passed_on_cut_to_a_length(
    endpoint: Endpoint, asking: Rpc, question: str, error: dict[str, Any], words: str
) -> None:
    endpoint.error(error)

    with pytest.raises(RpcRefused, match=words) as caught:
        await QUESTIONS[question](asking)

    assert caught.value.rpc_code == error["code"]
    assert len(caught.value.message) < 400


@pytest.mark.parametrize("error", ["text", 7, [], {}, {"code": "?", "message": None}, {"message": {"a": 1}}])
async def test_errors_in_no_known_form_are_ours_too(endpoint: Endpoint, asking: Rpc, error: object) -> None:
    endpoint.error(error)

    for question in QUESTIONS.values():
        with pytest.raises((RpcRefused, ChainUnreachable)):
            await question(asking)


KEY = "0123456789abcdef"


@pytest.mark.parametrize(
    "url",
    [
        f"http://127.0.0.1:99999999/v3/{KEY}",
        f"https://example.org:abc/v3/{KEY}",
        f"https:///v3/{KEY}",
        f"http://user:{KEY}@[::1/",
        f"ws://example.org/v3/{KEY}",
        KEY,
    ],
)
def test_a_url_that_is_none_is_refused_without_the_key_in_it(url: str) -> None:
    with pytest.raises(BadArgument) as caught:
        Rpc(url)
    assert KEY not in caught.value.message and caught.value.__cause__ is None


async def test_no_message_repeats_a_key_that_endpoint_or_library_tells(endpoint: Endpoint) -> None:
    async with connected(endpoint.url.replace("/secret", f"/v3/{KEY}?token={KEY[::-1]}"), tries=1) as rpc:
        for message in (f"key {KEY} is unknown", f"{KEY[::-1]} and the password"):
            endpoint.error({"code": -32000, "message": message})
            with pytest.raises(RpcRefused) as caught:
                await rpc.chain_id()
            assert not any(each in caught.value.message for each in (KEY, KEY[::-1], "password"))
        endpoint.location = f"http://127.0.0.1:99999999/v3/{KEY}"
        with pytest.raises(ChainUnreachable) as moved:
            await rpc.chain_id()
        assert KEY not in moved.value.message


@pytest.mark.parametrize("status", [401, 403, 404, 429, 500, 503])
async def test_a_refusal_by_http_names_its_status(endpoint: Endpoint, asking: Rpc, status: int) -> None:
    endpoint.status = status

    with pytest.raises(ChainUnreachable, match=f"HTTP status {status}"):
        await asking.chain_id()


@pytest.mark.parametrize("data", ["0x08c379a0", "0xzz", "Reverted 0x", None, {"data": "0x1234"}, 5])
async def test_a_revert_with_broken_data_is_an_unknown_revert(endpoint: Endpoint, asking: Rpc, data: object) -> None:
    endpoint.error({"code": 3, "message": "execution reverted", "data": data})

    with pytest.raises((UnknownRevert, ChainUnreachable)):
        await asking.call(SOMEBODY, b"")


BLOCK = {"number": "0x1", "hash": HASH, "parentHash": HASH, "timestamp": "0x2"}


async def test_a_block_is_read_and_one_that_is_not_there_is_none(endpoint: Endpoint, asking: Rpc) -> None:
    endpoint.result(BLOCK)
    assert await asking.block(1) == Block(number=1, hash=HASH, parent_hash=HASH, time=2)

    endpoint.result(None)
    assert await asking.block(1) is None


@pytest.mark.parametrize(
    "lie",
    [
        {"number": "0x2"},
        {"number": None},
        {"hash": None},
        {"hash": "0x1234"},
        {"parentHash": 5},
        {"timestamp": hex(2**53)},
    ],
)
async def test_a_block_that_is_not_the_one_asked_for_or_none_at_all_is_no_answer(
    endpoint: Endpoint, asking: Rpc, lie: dict[str, Any]
) -> None:
    endpoint.result({**BLOCK, **lie})

    with pytest.raises(ChainUnreachable):
        await asking.block(1)


async def test_an_account_without_a_contract_is_told_from_one_that_answers(endpoint: Endpoint, asking: Rpc) -> None:
    endpoint.result("0x")

    with pytest.raises(BadResult, match=r"balanceOf\(address\): .* check the address and the chain"):
        await PRLXViews(asking, SOMEBODY).balance_of(SOMEBODY)


@pytest.mark.parametrize("url", ["", "127.0.0.1:8545", "ws://127.0.0.1:8545", "file:///etc/passwd"])
def test_what_is_no_http_url_is_refused(url: str) -> None:
    with pytest.raises(BadArgument, match="no http:// or https:// URL"):
        Rpc(url)


async def test_questions_that_nobody_waits_for_any_more_hold_up_no_others(endpoint: Endpoint) -> None:
    endpoint.result("0x7")
    async with connected(endpoint.url, tries=1) as rpc:
        for turns in range(40):
            asked = [asyncio.create_task(rpc.block_number()) for _ in range(4)]
            for _ in range(turns % 8):
                await asyncio.sleep(0)
            for each in asked:
                each.cancel()
            await asyncio.gather(*asked, return_exceptions=True)

        assert await asyncio.wait_for(rpc.block_number(), 20) == 7
