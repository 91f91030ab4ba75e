"""OpenAI's own client works by changing its base URL, and turns our refusals into its own exceptions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest
import pytest_asyncio
from http_network import Network, StartNetwork, eventually
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolParam
from openai.types.shared_params.response_format_json_schema import JSONSchema
from talking_runtime import MODEL, TalkingRuntime

pytestmark = pytest.mark.asyncio(loop_scope="module")

SAID: list[ChatCompletionMessageParam] = [{"role": "user", "content": "one two three four"}]
WEATHER: ChatCompletionToolParam = {
    "type": "function",
    "function": {"name": "weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}},
}


def sdk_of(network: Network, secret: str) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=network.url + "/api/v1", api_key=secret, max_retries=0, timeout=30)


@pytest_asyncio.fixture(loop_scope="module")
async def sdk(network: Network) -> AsyncIterator[AsyncOpenAI]:
    """The SDK with a key of an account of its own."""
    async with network.customer() as customer, sdk_of(network, secret_of(customer)) as client:
        yield client


def secret_of(customer: Any) -> str:
    return customer.headers["authorization"].removeprefix("Bearer ")


async def test_models_are_listed_and_looked_up(sdk: AsyncOpenAI) -> None:
    models = [model async for model in sdk.models.list()]
    assert [(model.id, model.owned_by) for model in models] == [(MODEL, "parallelix")]
    assert (await sdk.models.retrieve(MODEL)).id == MODEL
    with pytest.raises(openai.NotFoundError) as caught:
        await sdk.models.retrieve("gpt-unheard-of")
    assert (caught.value.code, caught.value.param) == ("unknown_model", "model")


async def test_a_chat_is_answered_whole(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(
        model=MODEL, messages=SAID, max_tokens=3, temperature=0, top_p=1, seed=5, stop=["xyz"], user="someone"
    )
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one two three", "length")
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens, answer.usage.total_tokens) == (5, 3, 8)
    assert answer.model_extra is not None
    assert answer.model_extra["parallelix"]["record_hash"].startswith("0x")


async def test_a_chat_is_streamed_with_its_usage_last(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(
        model=MODEL, messages=SAID, stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == "one two three four"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 9
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "stop"


async def test_without_stream_options_no_chunk_has_a_usage(sdk: AsyncOpenAI) -> None:
    stream = await sdk.chat.completions.create(model=MODEL, messages=SAID, stream=True)
    assert [chunk.usage async for chunk in stream if chunk.usage is not None] == []


async def test_log_probabilities_are_read_by_the_sdk(sdk: AsyncOpenAI) -> None:
    answer = await sdk.chat.completions.create(model=MODEL, messages=SAID, logprobs=True, top_logprobs=2)
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.token for token in logprobs.content] == ["one", " two", " three", " four"]
    assert [each.token for each in logprobs.content[0].top_logprobs] == ["one", " other"]
    plain = await sdk.chat.completions.create(model=MODEL, messages=SAID)
    assert plain.choices[0].logprobs is None


async def test_a_tool_is_called_and_its_answer_sent_back(sdk: AsyncOpenAI) -> None:
    asked: list[ChatCompletionMessageParam] = [{"role": "user", "content": "how is Rome?"}]
    first = (await sdk.chat.completions.create(model=MODEL, messages=asked, tools=[WEATHER])).choices[0]
    assert first.finish_reason == "tool_calls"
    assert first.message.tool_calls is not None
    call = first.message.tool_calls[0]
    assert call.type == "function"
    assert (call.function.name, call.function.arguments) == ("weather", '{"city":"Rome"}')
    # The SDK's own message goes back as it came, with the tool's answer beside it.
    told: list[Any] = [
        *asked,
        first.message.model_dump(),
        {"role": "tool", "tool_call_id": call.id, "content": "sunny in Rome"},
    ]
    second = (await sdk.chat.completions.create(model=MODEL, messages=told)).choices[0]
    assert second.message.content == "sunny in Rome"


async def test_a_streamed_tool_call_is_put_together_by_the_sdk(sdk: AsyncOpenAI) -> None:
    async with sdk.chat.completions.stream(model=MODEL, messages=SAID, tools=[WEATHER]) as stream:
        async for _ in stream:
            pass
        answer = await stream.get_final_completion()
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [(call.function.name, call.function.arguments) for call in calls] == [("weather", '{"city":"Rome"}')]


async def test_a_response_format_reaches_the_runtime(start_network: StartNetwork) -> None:
    runtime = TalkingRuntime()
    schema: JSONSchema = {"name": "answer", "schema": {"type": "object", "properties": {"a": {"type": "integer"}}}}
    async with (
        start_network(runtime) as network,
        network.customer() as customer,
        sdk_of(network, secret_of(customer)) as sdk,
    ):
        await sdk.chat.completions.create(
            model=MODEL, messages=SAID, response_format={"type": "json_schema", "json_schema": schema}
        )
    assert runtime.asked[0].response_format == {"type": "json_schema", "json_schema": schema}


async def test_a_completion_is_answered_whole_and_in_a_stream(sdk: AsyncOpenAI) -> None:
    whole = await sdk.completions.create(model=MODEL, prompt="one two three", max_tokens=2, logprobs=1)
    assert (whole.choices[0].text, whole.choices[0].finish_reason) == ("one two", "length")
    assert whole.choices[0].logprobs is not None
    assert whole.choices[0].logprobs.tokens == ["one", " two"]
    stream = await sdk.completions.create(
        model=MODEL, prompt="one two three", stream=True, stream_options={"include_usage": True}
    )
    chunks = [chunk async for chunk in stream]
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "one two three"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 3


async def test_embeddings_are_unpacked_by_the_sdk(sdk: AsyncOpenAI) -> None:
    # The SDK asks for base64 by itself and gives numbers.
    answer = await sdk.embeddings.create(model=MODEL, input=["four", "eleven char"])
    assert [each.embedding for each in answer.data] == [[4.0, 0.5], [11.0, 0.5]]
    plain = await sdk.embeddings.create(model=MODEL, input="four", encoding_format="float")
    assert plain.data[0].embedding == [4.0, 0.5]


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 2}, "n"), ({"logit_bias": {"50256": -100}}, "logit_bias"), ({"store": True}, "store"),
        ({"modalities": ["text", "audio"]}, "modalities"), ({"reasoning_effort": "high"}, "reasoning_effort"),
        ({"service_tier": "priority"}, "service_tier"), ({"parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"tool_choice": "required", "tools": [WEATHER]}, "tool_choice"),
        ({"web_search_options": {}}, "web_search_options"),
        ({"prediction": {"type": "content", "content": "x"}}, "prediction"),
        ({"extra_body": {"repetition_penalty": 2}}, "repetition_penalty"),
    ],
)  # fmt: skip
async def test_what_cannot_be_honoured_is_refused_by_name(sdk: AsyncOpenAI, fields: dict[str, Any], param: str) -> None:
    create: Any = sdk.chat.completions.create
    with pytest.raises(openai.BadRequestError) as caught:
        await create(model=MODEL, messages=SAID, **fields)
    assert (caught.value.code, caught.value.param) == ("unsupported_parameter", param)
    assert param in caught.value.message


async def test_a_refusal_becomes_the_exception_that_the_sdk_has_for_it(network: Network) -> None:
    async with sdk_of(network, "prlx_nobody") as sdk:
        with pytest.raises(openai.AuthenticationError):
            await sdk.chat.completions.create(model=MODEL, messages=SAID)
    async with network.customer(credits_wei=0) as customer, sdk_of(network, secret_of(customer)) as sdk:
        with pytest.raises(openai.APIStatusError) as poor:
            await sdk.chat.completions.create(model=MODEL, messages=SAID)
    assert (poor.value.status_code, poor.value.body) == (
        402, {**error_body(poor.value), "code": "insufficient_credits", "type": "insufficient_quota"},
    )  # fmt: skip
    async with network.customer(requests_per_minute=1) as customer, sdk_of(network, secret_of(customer)) as sdk:
        await sdk.chat.completions.create(model=MODEL, messages=SAID)
        with pytest.raises(openai.RateLimitError) as limited:
            await sdk.chat.completions.create(model=MODEL, messages=SAID)
        assert int(limited.value.response.headers["retry-after"]) >= 1
        with pytest.raises(openai.PermissionDeniedError):
            other_account = {"parallelix": {"credit_account": "somebody"}}
            await sdk.chat.completions.create(model=MODEL, messages=SAID, extra_body=other_account)


def error_body(error: openai.APIStatusError) -> dict[str, Any]:
    body: Any = error.body
    return body


async def test_an_error_inside_a_stream_is_raised_by_the_sdk(start_network: StartNetwork) -> None:
    runtime = TalkingRuntime()
    async with (
        start_network(runtime, nodes=2) as network,
        network.customer() as customer,
        sdk_of(network, secret_of(customer)) as sdk,
    ):
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "fail late"}], stream=True
        )
        with pytest.raises(openai.APIError) as caught:
            async for chunk in stream:
                if chunk.choices[0].delta.content:
                    runtime.gate.set()
        assert caught.value.code == "attempt_restarted"


async def test_a_request_that_expired_is_not_sent_again(start_network: StartNetwork) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, network.customer() as customer:
        async with sdk_of(network, secret_of(customer)).with_options(max_retries=3) as sdk:
            with pytest.raises(openai.InternalServerError) as caught:
                await sdk.chat.completions.create(
                    model=MODEL, messages=SAID, extra_body={"parallelix": {"queue_seconds": 0}}
                )
        assert caught.value.code == "request_expired"
        assert len((await customer.get("/v1/requests")).json()["data"]) == 1


async def test_closing_the_sdks_stream_stops_the_work(start_network: StartNetwork) -> None:
    runtime = TalkingRuntime()
    async with (
        start_network(runtime, client_grace_seconds=0.05) as network,
        network.customer() as customer,
        sdk_of(network, secret_of(customer)) as sdk,
    ):
        stream = await sdk.chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "wait here"}], stream=True
        )
        async for chunk in stream:
            if chunk.choices[0].delta.content:
                break
        await stream.close()

        async def cancelled() -> bool:
            return [each["state"] for each in (await customer.get("/v1/requests")).json()["data"]] == ["cancelled"]

        async with asyncio.timeout(20):
            await runtime.stopped.wait()
        await eventually(cancelled)


async def test_a_repeat_with_the_same_idempotency_key_is_answered_by_the_first(sdk: AsyncOpenAI) -> None:
    headers = {"Idempotency-Key": "sdk-1"}
    answers = [
        await sdk.chat.completions.create(model=MODEL, messages=SAID, extra_headers=headers) for _ in range(2)
    ]  # fmt: skip
    assert answers[0].id == answers[1].id
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        await sdk.chat.completions.create(model=MODEL, messages=SAID, max_tokens=1, extra_headers=headers)
    assert caught.value.code == "idempotency_key_reused"
