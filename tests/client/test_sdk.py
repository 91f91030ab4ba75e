"""The SDK against a real coordinator and a real node, over a wire that breaks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from client_scene import Pauses
from cutting_wire import CuttingWire
from http_network import CREDITS_WEI, Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

from parallelix.client import (
    Client,
    Created,
    Delta,
    Ended,
    Event,
    NotFound,
    NotRecordedYet,
    PaymentRequired,
    RateLimited,
    Refused,
    RequestCancelled,
    Restarted,
    Retry,
    Unauthorised,
    chat,
    kept,
)
from parallelix.engine import events as engine_events
from parallelix.protocol.requests import ChatMessage, CreateRequest, RequestView

Wire = Callable[[Network], AbstractAsyncContextManager[CuttingWire]]
PATIENT = Retry(first_seconds=0.01)

VIEW = msgspec.json.encode(
    RequestView(
        id="req_1", state="queued", reason="", workload_class="ai.inference", kind="chat", model=MODEL,
        hardware_tier=1, priority="standard", deadline_seconds=1, queue_seconds=1, created_at=1, finished_at=None,
        attempts=0, usage=None, hold_wei="1", charge_wei="0", settled=False, record_hash=None,
    )
)  # fmt: skip

on_the_shared_network = pytest.mark.asyncio(loop_scope="module")


@asynccontextmanager
async def customer(
    network: Network, *, url: str = "", credits_wei: int = CREDITS_WEI, limits: dict[str, Any] | None = None,
    retry: Retry = PATIENT, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> AsyncGenerator[Client]:  # fmt: skip
    """A client with an account of its own."""
    account = f"sdk{next(network._numbers)}"  # pyright: ignore[reportPrivateUsage]
    if credits_wei:
        grant = engine_events.Grant(grant_id=f"grant:{account}", account=account, amount_wei=credits_wei)
        await network.coordinator.settle(grant)
    secret = await network.new_key(account, **(limits or {}))
    async with Client(url or network.url, secret, retry=retry, sleep=sleep) as client:
        yield client


async def all_of(events: AsyncGenerator[Event]) -> list[Event]:
    return [event async for event in events]


def text_of(events: list[Event]) -> str:
    return "".join(event.text for event in events if isinstance(event, Delta))


@on_the_shared_network
async def test_an_answer_has_its_text_its_price_and_its_record(network: Network) -> None:
    async with customer(network) as client:
        answer = await client.ask(chat("one two three", model=MODEL, system="Be brief."))
        view = await client.get(answer.request_id)
        assert (answer.text, answer.finish_reason, answer.restarts) == ("one two three", "stop", 0)
        assert (answer.usage.completion_tokens, answer.charge_wei) == (3, "11000")
        assert (view.state, view.record_hash, view.charge_wei) == ("completed", answer.record_hash, answer.charge_wei)


@on_the_shared_network
async def test_a_stream_tells_that_it_was_created_what_is_said_and_how_it_ended(network: Network) -> None:
    async with customer(network) as client:
        events = await all_of(client.stream(chat("one two three", model=MODEL)))
        assert isinstance(events[0], Created)
        assert [type(event).__name__ for event in events[1:3]] == ["Progress", "Progress"]
        assert text_of(events) == "one two three"
        end = events[-1]
        assert isinstance(end, Ended)
        assert (end.state, end.request_id) == ("completed", events[0].request_id)


async def test_a_broken_stream_goes_on_where_it_was(
    start_network: StartNetwork, runtime: TalkingRuntime, wire: Wire
) -> None:
    async with start_network(runtime) as network, wire(network) as line, customer(network, url=line.url) as client:
        seen: list[Event] = []
        async for event in client.stream(chat("wait here", model=MODEL)):
            if isinstance(event, Delta) and not runtime.gate.is_set():
                line.cut()
                runtime.gate.set()
            seen.append(event)
        deltas = [(event.offset_bytes, event.text) for event in seen if isinstance(event, Delta)]
        assert deltas == [(0, "wait"), (4, " here")]
        assert [type(event) for event in seen if isinstance(event, Created | Restarted | Ended)] == [Created, Ended]
        assert (await client.account()).available_wei == str(CREDITS_WEI - 9000)


async def test_an_answer_that_got_lost_on_the_way_is_not_charged_twice(
    start_network: StartNetwork, runtime: TalkingRuntime, wire: Wire
) -> None:
    async with (
        start_network(runtime, batch_seconds=0.05) as network,
        wire(network) as line,
        customer(network, url=line.url) as client,
    ):
        line.swallow = 3
        answer = await client.ask(chat("one two three", model=MODEL))
        assert line.swallow == 0
        assert answer.text == "one two three"
        assert [each.id for each in (await client.list()).data] == [answer.request_id]
        assert len(runtime.asked) == 1
        await eventually(lambda: is_settled(client, answer.request_id))
        account = await client.account()
        assert (account.available_wei, account.key.spent_wei) == (str(CREDITS_WEI - 11000), "11000")


async def is_settled(client: Client, request_id: str) -> bool:
    return (await client.get(request_id)).settled


@on_the_shared_network
async def test_a_key_of_ones_own_finds_the_same_request_again_and_no_other_body(network: Network) -> None:
    async with customer(network) as client:
        first = await client.create(chat("one", model=MODEL), idempotency_key="mine")
        again = await client.create(chat("one", model=MODEL), idempotency_key="mine")
        assert first.id == again.id
        with pytest.raises(Refused) as refused:
            await client.create(chat("two", model=MODEL), idempotency_key="mine")
        assert (refused.value.code, refused.value.status) == ("idempotency_key_reused", 422)


async def test_a_new_attempt_is_told_and_its_text_alone_is_the_answer(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, nodes=2) as network, customer(network) as client:
        events: list[Event] = []
        async for event in client.stream(chat("fail late", model=MODEL)):
            events.append(event)
            if isinstance(event, Delta):
                runtime.gate.set()
        restart = next(at for at, event in enumerate(events) if isinstance(event, Restarted))
        assert text_of(events[:restart]) == "fail"
        assert text_of(events[restart:]) == "fail late"
        runtime.failures = 1
        answer = await client.ask(chat("fail late", model=MODEL))
        assert (answer.text, answer.restarts) == ("fail late", 1)


async def test_leaving_a_stream_cancels_and_leaving_it_detached_does_not(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, client_grace_seconds=600) as network, customer(network) as client:
        left = await first_words_of(client.stream(chat("wait here", model=MODEL)))
        async with asyncio.timeout(20):
            await runtime.stopped.wait()
        await eventually(lambda: is_in(client, left, "cancelled"))

        kept_on = await first_words_of(client.stream(chat("wait here", model=MODEL), detached=True))
        runtime.gate.set()
        await eventually(lambda: is_in(client, kept_on, "completed"))


async def test_whoever_is_cancelled_before_it_knows_its_request_leaves_none_behind(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime) as network, customer(network) as client:
        asking = asyncio.create_task(client.ask(chat("wait here", model=MODEL)))
        await eventually(lambda: has_requests(client))
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        (view,) = (await client.list()).data
        await eventually(lambda: is_in(client, view.id, "cancelled"))


async def test_a_create_that_is_cut_off_by_its_caller_is_taken_back() -> None:
    answering = asyncio.Event()
    calls: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        calls.append(f"{request.method} {request.url.path}")
        if len(calls) == 1:
            answering.set()
            await asyncio.sleep(0.05)
        return httpx.Response(201, content=VIEW)

    async with Client("http://127.0.0.1:1", "prlx_x", transport=httpx.MockTransport(answer)) as client:
        asking = asyncio.create_task(client.ask(chat("one", model=MODEL)))
        await answering.wait()
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
    assert calls == ["POST /v1/requests", "POST /v1/requests/req_1/cancel"]


async def first_words_of(stream: AsyncGenerator[Event]) -> str:
    """Reads a stream up to its first text, leaves it, and gives the request's id."""
    request_id = ""
    async with aclosing(stream) as events:
        async for event in events:
            if isinstance(event, Created):
                request_id = event.request_id
            if isinstance(event, Delta):
                break
    return request_id


async def is_in(client: Client, request_id: str, state: str) -> bool:
    return (await client.get(request_id)).state == state


async def test_a_request_that_was_cancelled_raises_and_has_no_receipt(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, customer(network) as client:
        asking = asyncio.create_task(client.ask(chat("one", model=MODEL)))
        await eventually(lambda: has_requests(client))
        (view,) = (await client.list()).data
        assert view.held is not None
        assert view.held.reason == "no_capable_node"
        assert (await client.cancel(view.id)).state == "cancelled"
        with pytest.raises(RequestCancelled) as cancelled:
            await asking
        assert (cancelled.value.code, cancelled.value.charge_wei) == ("request.cancelled", "0")
        with pytest.raises(NotRecordedYet):
            await client.receipt(view.id)


async def has_requests(client: Client) -> bool:
    return bool((await client.list()).data)


async def test_a_busy_key_waits_as_long_as_it_is_asked_to(start_network: StartNetwork, runtime: TalkingRuntime) -> None:
    waited: list[float] = []

    async def pause(seconds: float) -> None:
        waited.append(seconds)
        runtime.gate.set()
        await eventually(lambda: nothing_open(network))

    async with (
        start_network(runtime) as network,
        customer(network, limits={"concurrency": 1}, sleep=pause) as client,
    ):
        await client.create(chat("wait here", model=MODEL))
        assert (await client.ask(chat("one", model=MODEL))).text == "one"
    assert waited and waited[0] >= 1


async def nothing_open(network: Network) -> bool:
    return (await network.coordinator.network()).requests_open == 0


@on_the_shared_network
async def test_each_refusal_has_its_class_its_code_and_its_status(network: Network) -> None:
    async with Client(network.url, "prlx_nobody") as stranger:
        with pytest.raises(Unauthorised) as unauthorised:
            await stranger.account()
    assert (unauthorised.value.code, unauthorised.value.status) == ("invalid_api_key", 401)
    async with customer(network, credits_wei=0) as poor:
        with pytest.raises(PaymentRequired) as unpaid:
            await poor.ask(chat("one", model=MODEL))
        assert unpaid.value.code == "insufficient_credits"
    async with customer(network, limits={"requests_per_minute": 1}, retry=Retry(tries_max=1)) as hasty:
        await hasty.create(chat("one", model=MODEL))
        with pytest.raises(RateLimited) as limited:
            await hasty.create(chat("one", model=MODEL))
        assert limited.value.retry_after_seconds is not None
    async with customer(network) as client:
        with pytest.raises(NotFound) as nowhere:
            await client.get("req_" + "0" * 64)
        assert nowhere.value.code == "unknown_request"
        # The models' route answers in OpenAI's shape.
        with pytest.raises(NotFound) as unknown:
            await client.model("no/such:model")
        assert (unknown.value.code, unknown.value.param) == ("unknown_model", "model")
        with pytest.raises(Refused) as wrong:
            await client.create(chat("one", model=MODEL, temperature=9.0))
        assert (wrong.value.code, wrong.value.status) == ("malformed", 400)


@on_the_shared_network
async def test_account_keys_models_quote_and_pages_are_as_the_coordinator_says(network: Network) -> None:
    async with customer(network) as client:
        account = await client.account()
        assert [key.id for key in (await client.keys()).data] == [account.key.id]
        (model,) = (await client.models()).data
        assert await client.model(MODEL) == model
        quote = await client.quote(chat("one", model=MODEL, max_tokens=50))
        assert (quote.completion_tokens_max, quote.affordable) == (50, True)
        assert await client.account() == account
        ids = [(await client.ask(chat("one", model=MODEL))).request_id for _ in range(3)]
        first = await client.list(limit=2)
        rest = await client.list(limit=2, cursor=first.next_cursor)
        assert [each.id for each in first.data + rest.data] == ids[::-1]
        assert (await client.network()).coordinator == (await client.receipt(ids[0])).coordinator


TOOL = {"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}
BODIES = {
    "a chat": chat("one two", model=MODEL, system="Be brief."),
    "every option": chat(
        "one two", model=MODEL, max_tokens=9, temperature=0.7, top_p=0.9, top_k=40, min_p=0.05, presence_penalty=-0.5,
        frequency_penalty=1.5, seed=7, stop=("x", "y"), top_logprobs=2,
    ),
    "one stop": chat("one two", model=MODEL, stop="x"),
    "a tool's call": chat("one two", model=MODEL, tools=[TOOL]),
    "a schema": chat("one", model=MODEL, response_format={"type": "json_object"}),
    "plain text": chat("one", model=MODEL, response_format={"type": "text"}),
    "a completion": CreateRequest(model=MODEL, prompt="one two"),
    "an embedding": CreateRequest(model=MODEL, input=("one", "two three")),
    "a long talk": CreateRequest(
        model=MODEL,
        messages=(
            ChatMessage(role="user", content="Où? \u20ac"),
            ChatMessage(role="assistant", content="Là."),
            ChatMessage(role="user", content="one", name="ada"),
        ),
    ),
}  # fmt: skip


@on_the_shared_network
@pytest.mark.parametrize("name", BODIES)
async def test_what_is_kept_proves_itself_for_every_kind_of_request(network: Network, name: str) -> None:
    async with customer(network) as client:
        body = BODIES[name]
        request_id = (await client.create(body)).id
        await all_of(client.follow(request_id))
        found = await client.keep(body, request_id)
        checks = kept.verify(found, coordinator=(await client.network()).coordinator)
        assert [each[0] for each in checks][:5] == ["record", "coordinator", "signer", "input", "result"]
        assert [each for each in checks if not each[1]] == []
        assert [each for each in await client.published(found.receipt) if not each[1]] == []


@on_the_shared_network
async def test_a_receipt_that_the_coordinator_does_not_publish_is_noticed(network: Network) -> None:
    async with customer(network) as client:
        answer = await client.ask(chat("one", model=MODEL))
        receipt = await client.receipt(answer.request_id)
        elsewhere = httpx.MockTransport(
            lambda request: httpx.Response(404, json={"error": "unknown_record", "message": "-"})
        )
        async with Client(network.url, transport=elsewhere, sleep=Pauses()) as other:
            assert [holds for _, holds, _ in await other.published(receipt)] == [False] * (
                1 + (receipt.batch is not None)
            )
