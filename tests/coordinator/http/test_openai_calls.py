"""The OpenAI shapes over real HTTP, answered by a real node."""

from __future__ import annotations

import asyncio
import base64
import struct
from typing import Any

import httpx
import msgspec
import pytest
from event_streams import Event, all_events, events_of
from http_network import CREDITS_WEI, Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

CHAT = "/v1/chat/completions"

pytestmark = pytest.mark.asyncio(loop_scope="module")


def chat_body(prompt: str, **fields: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": [{"role": "user", "content": prompt}], **fields}


async def stream(client: httpx.AsyncClient, path: str, body: dict[str, Any], **headers: str) -> list[Event]:
    async with client.stream("POST", path, json={**body, "stream": True}, headers=headers) as response:
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/event-stream")
        return await all_events(response)


async def charged_wei(client: httpx.AsyncClient) -> int:
    view = (await client.get("/v1/account")).json()
    assert view["open_requests"] == 0
    return CREDITS_WEI - int(view["available_wei"])


async def test_a_chat_answers_with_its_usage_its_record_and_its_charge(client: httpx.AsyncClient) -> None:
    response = await client.post(CHAT, json=chat_body("one two three"))
    answer = response.json()
    extra = answer["parallelix"]
    assert answer["object"] == "chat.completion"
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "one two three", "refusal": None}
    assert answer["choices"][0]["finish_reason"] == "stop"
    assert answer["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert response.headers["x-parallelix-request"] == extra["request_id"]
    assert answer["id"] == "chatcmpl-" + extra["request_id"]
    receipt = (await client.get(extra["receipt"])).json()
    assert receipt["record_hash"] == extra["record_hash"]
    assert receipt["charge_wei"] == extra["charge_wei"] == "11000"


async def test_a_stream_shows_the_same_text_then_its_end(client: httpx.AsyncClient) -> None:
    events = await stream(client, CHAT, chat_body("one two three", stream_options={"include_usage": True}))
    *chunks, done = [event.data for event in events]
    deltas = [chunk["choices"][0]["delta"] for chunk in chunks[:-1]]
    assert done == "[DONE]"
    assert deltas[0] == {"role": "assistant", "content": ""}
    assert "".join(delta.get("content", "") for delta in deltas) == "one two three"
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"] == {"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8}
    assert all(chunk["usage"] is None for chunk in chunks[:-1])
    assert chunks[-2]["parallelix"]["record_hash"].startswith("0x")
    assert len({chunk["id"] for chunk in chunks}) == 1


async def test_log_probabilities_are_the_models_own_and_as_many_as_asked(client: httpx.AsyncClient) -> None:
    body = chat_body("one two", logprobs=True, top_logprobs=2)
    whole = (await client.post(CHAT, json=body)).json()["choices"][0]["logprobs"]["content"]
    chunks = [event.data for event in await stream(client, CHAT, body) if event.data != "[DONE]"]
    streamed: list[Any] = []
    for chunk in chunks:
        streamed += (chunk["choices"][0]["logprobs"] or {"content": []})["content"]
    assert [token["token"] for token in whole] == ["one", " two"]
    assert [token["logprob"] for token in whole] == [-0.25, -0.25]
    assert [len(token["top_logprobs"]) for token in whole] == [2, 2]
    assert whole[0]["bytes"] == list(b"one")
    assert streamed == whole


async def test_a_legacy_completion_has_its_own_shape_of_log_probabilities(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "prompt": "zwei drü", "logprobs": 1}
    whole = (await client.post("/v1/completions", json=body)).json()
    events = await stream(client, "/v1/completions", body)
    choice = whole["choices"][0]
    assert (whole["object"], choice["text"]) == ("text_completion", "zwei drü")
    assert choice["logprobs"] == {
        "tokens": ["zwei", " drü"],
        "token_logprobs": [-0.25, -0.25],
        "top_logprobs": [{"zwei": -0.25}, {" drü": -0.25}],
        "text_offset": [0, 4],
    }
    assert "".join(event.data["choices"][0]["text"] for event in events[:-1]) == "zwei drü"
    assert events[-1].data == "[DONE]"


async def test_a_tool_call_comes_whole_and_in_a_stream(client: httpx.AsyncClient) -> None:
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    call = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": '{"city":"Rome"}'}}
    body = chat_body("how is Rome?", tools=[tool])
    whole = (await client.post(CHAT, json=body)).json()["choices"][0]
    events = await stream(client, CHAT, body)
    assert whole["finish_reason"] == "tool_calls"
    assert whole["message"] == {"role": "assistant", "content": None, "refusal": None, "tool_calls": [call]}
    deltas = [event.data["choices"][0]["delta"] for event in events[:-1]]
    assert [delta["tool_calls"] for delta in deltas if "tool_calls" in delta] == [[{"index": 0, **call}]]


async def test_a_vector_is_the_same_as_numbers_and_in_base64(client: httpx.AsyncClient) -> None:
    body = {"model": MODEL, "input": ["four", "eleven char"]}
    numbers = (await client.post("/v1/embeddings", json=body)).json()
    packed = (await client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})).json()
    assert [each["embedding"] for each in numbers["data"]] == [[4.0, 0.5], [11.0, 0.5]]
    unpacked = [list(struct.unpack("<2f", base64.b64decode(each["embedding"]))) for each in packed["data"]]
    assert unpacked == [[4.0, 0.5], [11.0, 0.5]]
    assert numbers["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_what_the_model_is_asked_is_what_the_requester_wrote(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    body = chat_body(
        "hello there you", temperature=0.5, seed=11, stop=["you"], max_tokens=2,
        response_format={"type": "json_object"},
    )  # fmt: skip
    async with start_network(runtime) as network, network.customer() as client:
        answer = (await client.post(CHAT, json=body)).json()
    asked = runtime.asked[0]
    assert answer["choices"][0]["finish_reason"] == "length"
    assert (asked.sampling.temperature, asked.sampling.seed, asked.sampling.max_tokens) == (0.5, 11, 2)
    assert asked.sampling.stop == ("you",)
    assert asked.response_format == {"type": "json_object"}


async def test_closing_the_connection_stops_the_work(start_network: StartNetwork, runtime: TalkingRuntime) -> None:
    async with start_network(runtime, client_grace_seconds=0.05) as network, network.customer() as client:
        body = chat_body("wait here", stream=True)
        async with client.stream("POST", CHAT, json=body) as response:
            request_id = response.headers["x-parallelix-request"]
            async for event in events_of(response):
                if event.data["choices"][0]["delta"].get("content") == "wait":
                    break
        async with asyncio.timeout(20):
            await runtime.stopped.wait()

        async def cancelled() -> bool:
            return (await client.get(f"/v1/requests/{request_id}")).json()["state"] == "cancelled"

        await eventually(cancelled)


async def test_closing_a_call_that_does_not_stream_stops_the_work_too(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, client_grace_seconds=0.05) as network, network.customer() as client:
        waiting = asyncio.create_task(client.post(CHAT, json=chat_body("wait here")))
        async with asyncio.timeout(20):
            await runtime.waiting.wait()
            waiting.cancel()
            await runtime.stopped.wait()
        with pytest.raises(asyncio.CancelledError):
            await waiting


async def test_a_stream_whose_node_was_lost_after_text_ends_with_an_error_and_costs_nothing(
    start_network: StartNetwork, runtime: TalkingRuntime
) -> None:
    async with start_network(runtime, nodes=2) as network, network.customer() as client:
        events: list[Event] = []
        async with client.stream("POST", CHAT, json=chat_body("fail late", stream=True)) as response:
            async for event in events_of(response):
                events.append(event)
                if "choices" in event.data and event.data["choices"][0]["delta"].get("content") == "fail":
                    runtime.gate.set()
        assert events[-1].data["error"]["code"] == "attempt_restarted"

        async def closed() -> bool:
            return (await client.get("/v1/account")).json()["open_requests"] == 0

        await eventually(closed)
        assert await charged_wei(client) == 0


async def test_a_request_that_no_node_can_take_expires_and_is_not_tried_again(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, network.customer() as client:
        response = await client.post(CHAT, json=chat_body("hello", parallelix={"queue_seconds": 0}))
        assert (response.status_code, response.json()["error"]["code"]) == (504, "request_expired")
        assert response.headers["x-should-retry"] == "false"
        events = await stream(client, CHAT, chat_body("hello", parallelix={"queue_seconds": 0}))
        assert events[-1].data["error"]["code"] == "request_expired"
        assert await charged_wei(client) == 0


async def test_the_same_idempotency_key_is_the_same_request(client: httpx.AsyncClient) -> None:
    headers = {"idempotency-key": "order-7"}
    body = chat_body("one two")
    answers = await asyncio.gather(*(client.post(CHAT, json=body, headers=headers) for _ in range(8)))
    later = await client.post(CHAT, json=body, headers=headers)
    assert {answer.content for answer in answers} == {later.content}
    assert {answer.status_code for answer in answers} == {200}
    assert len((await client.get("/v1/requests")).json()["data"]) == 1

    other = await client.post(CHAT, json=chat_body("something else"), headers=headers)
    assert (other.status_code, other.json()["error"]["code"]) == (422, "idempotency_key_reused")
    elsewhere = await client.post("/v1/completions", json={"model": MODEL, "prompt": "x"}, headers=headers)
    assert elsewhere.json()["error"]["code"] == "idempotency_key_reused"


async def test_a_repeated_stream_begins_again_from_its_start(client: httpx.AsyncClient) -> None:
    body = chat_body("one two", logprobs=True)
    first = await stream(client, CHAT, body, **{"idempotency-key": "k"})
    again = await stream(client, CHAT, body, **{"idempotency-key": "k"})
    assert shown(first) == shown(again) == "one two"
    assert first[0].data == again[0].data
    assert first[-2:] == again[-2:]


def shown(events: list[Event]) -> str:
    return "".join(event.data["choices"][0]["delta"].get("content", "") for event in events[:-1])


@pytest.mark.parametrize("key", ["", "x" * 256, "with space", "tab\there", "ünlaut"])
async def test_an_idempotency_key_that_is_not_short_and_printable_is_refused(
    client: httpx.AsyncClient, key: str
) -> None:
    response = await client.post(CHAT, json=chat_body("hi"), headers={"idempotency-key": key.encode()})  # pyright: ignore
    assert (response.status_code, response.json()["error"]["param"]) == (400, "Idempotency-Key")


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        (CHAT, chat_body("x", n=2), 400, "unsupported_parameter"),
        (CHAT, {"model": "nobody-has-this", "messages": [{"role": "user", "content": "x"}]}, 404, "unknown_model"),
        (CHAT, chat_body("x", max_tokens=2**20), 400, "max_tokens_too_large"),
        (CHAT, chat_body("x" * 40_000), 400, "context_exceeded"),
        (CHAT, chat_body("x", parallelix={"credit_account": "somebody"}), 403, "wrong_credit_account"),
        ("/v1/completions", {"model": MODEL, "prompt": ""}, 400, "invalid_request"),
        ("/v1/embeddings", {"model": MODEL, "input": ""}, 400, "invalid_request"),
    ],
)
async def test_a_refusal_has_openais_shape(
    client: httpx.AsyncClient, path: str, body: dict[str, Any], status: int, code: str
) -> None:
    response = await client.post(path, json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "code", "param"}
    assert (await client.get("/v1/requests")).json()["data"] == []


async def test_limits_of_a_key_answer_when_to_come_back(network: Network) -> None:
    async with network.customer(requests_per_minute=1) as client:
        assert (await client.post(CHAT, json=chat_body("hi"))).status_code == 200
        response = await client.post(CHAT, json=chat_body("hi"))
    assert (response.status_code, response.json()["error"]["code"]) == (429, "rate_limited")
    assert response.json()["error"]["type"] == "rate_limit_error"
    assert int(response.headers["retry-after"]) >= 1


async def test_an_account_without_credits_is_told_so(network: Network) -> None:
    async with network.customer(credits_wei=0) as client:
        response = await client.post(CHAT, json=chat_body("hi"))
    assert (response.status_code, response.json()["error"]["code"]) == (402, "insufficient_credits")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [("", "missing_api_key"), ("Bearer prlx_nobody", "invalid_api_key"), ("Basic eDp5", "invalid_api_key")],
)
async def test_a_call_without_a_good_key_is_refused(network: Network, authorization: str, code: str) -> None:
    headers = {"authorization": authorization} if authorization else {}
    async with httpx.AsyncClient(base_url=network.url, headers=headers) as client:
        response = await client.post(CHAT, json=chat_body("hi"))
    assert (response.status_code, response.json()["error"]["code"]) == (401, code)
    assert response.headers["www-authenticate"].startswith("Bearer")


async def test_everything_lies_below_the_base_path_too(client: httpx.AsyncClient) -> None:
    answer = await client.post("/api" + CHAT, json=chat_body("hello"))
    assert msgspec.json.decode(answer.content)["choices"][0]["message"]["content"] == "hello"
    assert (await client.get("/api/v1/models")).json() == (await client.get("/v1/models")).json()
