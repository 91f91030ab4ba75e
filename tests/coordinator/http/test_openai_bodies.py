"""What the OpenAI shapes accept, and that nothing they cannot honour is ever ignored."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from parallelix.coordinator.errors import BadRequest, UnsupportedParameter
from parallelix.coordinator.http import openai_bodies
from parallelix.coordinator.http.openai_bodies import CHAT, COMPLETION, EMBEDDING, Shape

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hello"}]


def chat(**fields: Any) -> openai_bodies.ChatBody:
    return CHAT.read(msgspec.json.encode({"model": "m", "messages": MESSAGES, **fields}))


def refused(shape: Shape[Any], fields: dict[str, Any]) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        shape.read(msgspec.json.encode(fields))
    return caught.value


def test_every_option_of_a_chat_reaches_the_payload() -> None:
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    body = chat(
        temperature=0.25, top_p=0.5, top_k=40, min_p=0.125, presence_penalty=-1, frequency_penalty=2, seed=7,
        stop=["a", "b"], max_completion_tokens=9, logprobs=True, top_logprobs=3, tools=tools,
        response_format={"type": "json_object"},
        parallelix={"hardware_tier": 3, "priority": "urgent", "deadline_seconds": 30, "queue_seconds": 0,
                    "credit_account": "acme", "verification": "sampled"},
    )  # fmt: skip
    spec = openai_bodies.chat_spec(body)
    sampling = spec.payload.sampling
    assert spec.features == ("chat", "tools", "grammar", "logprobs")
    assert (spec.hardware_tier, spec.priority, spec.deadline_seconds, spec.queue_seconds) == (3, "urgent", 30, 0)
    assert (spec.credit_account, spec.verification, spec.max_tokens, spec.message_count) == ("acme", "sampled", 9, 1)
    assert msgspec.json.decode(spec.payload.tools) == tools
    assert msgspec.json.decode(spec.payload.response_format) == {"type": "json_object"}
    assert (sampling.temperature, sampling.top_p, sampling.top_k, sampling.min_p) == ("0.25", "0.5", 40, "0.125")
    assert (sampling.presence_penalty, sampling.frequency_penalty, sampling.seed) == ("-1", "2", 7)
    assert (sampling.stop, sampling.max_tokens, sampling.top_logprobs) == (("a", "b"), 9, 3)


def test_parts_of_text_become_one_text() -> None:
    parts = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    body = chat(messages=[{"role": "user", "content": parts}])
    assert openai_bodies.chat_spec(body).payload.messages[0].content == "Hello"


def test_a_message_that_the_sdk_gave_can_be_sent_back() -> None:
    said: dict[str, Any] = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": [], "audio": None,
            "function_call": None, "tool_calls": None}  # fmt: skip
    body = chat(messages=[*MESSAGES, said, *MESSAGES], n=1, logit_bias=None, store=False)
    assert [message.content for message in openai_bodies.chat_spec(body).payload.messages] == ["Hello", "Hi", "Hello"]


def test_tools_that_may_not_be_called_are_not_shown_to_the_model() -> None:
    body = chat(tools=[{"type": "function", "function": {"name": "look"}}], tool_choice="none")
    assert openai_bodies.chat_spec(body).payload.tools == ""


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("n", 2), ("logit_bias", {"5": 1}), ("audio", {"voice": "x"}), ("modalities", ["text", "audio"]),
        ("parallel_tool_calls", False), ("store", True), ("prediction", {"type": "content", "content": "x"}),
        ("reasoning_effort", "low"), ("verbosity", "low"), ("service_tier", "flex"), ("web_search_options", {}),
        ("functions", []), ("function_call", "auto"), ("tool_choice", "required"),
        ("tool_choice", {"type": "function", "function": {"name": "look"}}), ("no_such_parameter", 1),
    ],
)  # fmt: skip
def test_a_chat_parameter_that_nothing_can_honour_is_refused_by_name(name: str, value: Any) -> None:
    error = refused(CHAT, {"model": "m", "messages": MESSAGES, name: value})
    assert (error.status, error.code, error.param) == (400, "unsupported_parameter", name)
    assert name in error.message


@pytest.mark.parametrize(
    ("shape", "fields", "param"),
    [
        (COMPLETION, {"prompt": "x", "echo": True}, "echo"),
        (COMPLETION, {"prompt": "x", "best_of": 2}, "best_of"),
        (COMPLETION, {"prompt": "x", "suffix": "end"}, "suffix"),
        (COMPLETION, {"prompt": [1, 2]}, "prompt"),
        (COMPLETION, {"prompt": [[1, 2]]}, "prompt"),
        (EMBEDDING, {"input": [1, 2]}, "input"),
        (EMBEDDING, {"input": [[1], [2]]}, "input"),
        (EMBEDDING, {"input": "x", "dimensions": 8}, "dimensions"),
        (CHAT, {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
         "messages[0].content[0].type"),
        (CHAT, {"messages": [{"role": "user", "content": "x", "weight": 1}]}, "messages[0].weight"),
        (CHAT, {"messages": MESSAGES, "parallelix": {"speed": 1}}, "parallelix.speed"),
    ],
)  # fmt: skip
def test_what_other_shapes_cannot_honour_is_refused_by_name(
    shape: Shape[Any], fields: dict[str, Any], param: str
) -> None:
    error = refused(shape, {"model": "m", **fields})
    assert isinstance(error, UnsupportedParameter)
    assert error.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 3}, {"max_tokens": 0}, {"top_logprobs": 21, "logprobs": True}, {"seed": 2**40},
        {"messages": []}, {"messages": "hello"}, {"model": ""}, {"stop": [""] * 17}, {"stream": "yes"},
        {"messages": [{"role": "wizard", "content": "x"}]}, {"metadata": {"a": 1}}, {"n": True},
    ],
)  # fmt: skip
def test_a_mistyped_chat_is_refused(fields: dict[str, Any]) -> None:
    assert refused(CHAT, {"model": "m", "messages": MESSAGES, **fields}).status == 400


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, "max_tokens"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        ({"response_format": {"type": "grammar"}}, "response_format"),
        ({"response_format": {"type": "json_schema", "json_schema": {"schema": {"maximum": 2**60}}}},
         "response_format"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools"),
        ({"tools": [{"type": "function", "function": {"name": "x", "strict": True}}]}, "tools"),
    ],
)  # fmt: skip
def test_a_chat_that_contradicts_itself_is_refused(fields: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequest) as caught:
        openai_bodies.chat_spec(chat(**fields))
    assert caught.value.param == param


def test_a_schema_nested_without_end_is_refused() -> None:
    schema: dict[str, Any] = {}
    for _ in range(40):
        schema = {"properties": schema}
    with pytest.raises(BadRequest, match="deeper"):
        openai_bodies.chat_spec(chat(response_format={"type": "json_schema", "json_schema": {"schema": schema}}))


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"nul", b"[]", b"NaN", b'"text"', b'{"model":NaN}', b'{"model":"\\ud800"}', b'{"model":"\xff"}',
        b'{"model":1e999}', b'{"seed":' + b"9" * 5000 + b"}", b"[" * 100_000, b'{"tools":' + b"[" * 100_000,
        b'{"model":"m","model":"n","messages":[{"role":"user","content":"x"}]}',
        b'{"model":"m","messages":[{"role":"user","content":"x","content":"y"}]}',
        b"\xef\xbb\xbf{}", b'{"model":"m"}{}',
    ],
)  # fmt: skip
def test_bytes_that_are_no_proper_json_are_malformed(body: bytes) -> None:
    with pytest.raises(BadRequest) as caught:
        CHAT.read(body)
    assert caught.value.code == "malformed"
