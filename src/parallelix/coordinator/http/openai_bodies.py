"""The bodies of the OpenAI shapes, and the way from each to a `RequestSpec`.

Fields have OpenAI's names and bounds. A field that no runtime here can honour is accepted only at the value that asks
for nothing (null, `n: 1`, `store: false`); any other value, and any name that OpenAI does not know, is a refusal.
"""

from __future__ import annotations

from typing import Annotated, Any, Generic, Literal, NoReturn, TypeVar, cast

import msgspec
from msgspec import Meta

from parallelix.coordinator import spec as specs
from parallelix.coordinator.errors import BadRequest, UnsupportedParameter
from parallelix.coordinator.http import limits
from parallelix.coordinator.spec import RequestSpec
from parallelix.protocol import requests, work
from parallelix.protocol.messages import ShortText
from parallelix.protocol.requests import INPUTS_MAX, MESSAGES_MAX, STOPS_MAX, TOP_LOGPROBS_MAX, ChatMessage

COMPLETION_LOGPROBS_MAX = 5
"""OpenAI's own bound for the legacy shape."""
METADATA_MAX = 16
"""OpenAI's own bound. Metadata is accepted for compatibility and kept nowhere."""

Model = Annotated[str, Meta(min_length=1, max_length=128)]
Tokens = Annotated[int, Meta(ge=1, le=2**20)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Share = Annotated[float, Meta(ge=0, le=1)]
Stops = str | Annotated[tuple[str, ...], Meta(max_length=STOPS_MAX)]


class ParallelixOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What OpenAI's shapes have no name for; clients send it as `extra_body={"parallelix": {…}}`."""

    hardware_tier: Annotated[int, Meta(ge=1, le=4)] = 1
    priority: Literal["standard", "expedited", "urgent"] = "standard"
    deadline_seconds: requests.Seconds | None = None
    queue_seconds: requests.QueueSeconds | None = None
    credit_account: ShortText = ""
    verification: Literal["", "sampled"] = ""


class StreamOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    include_usage: bool = False
    include_obfuscation: Literal[False] | None = None


class _Generation(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    model: Model
    stream: bool = False
    stream_options: StreamOptions | None = None
    max_tokens: Tokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[int, Meta(ge=1, le=1000)] | None = None
    min_p: Share | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    seed: Annotated[int, Meta(ge=-(2**31), le=2**32 - 1)] | None = None
    stop: Stops | None = None
    n: Literal[1] = 1
    user: Annotated[str, Meta(max_length=256)] = ""
    metadata: Annotated[dict[ShortText, Annotated[str, Meta(max_length=512)]], Meta(max_length=METADATA_MAX)] = {}
    parallelix: ParallelixOptions = ParallelixOptions()


class ChatBody(_Generation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/chat/completions`."""

    messages: Annotated[tuple[ChatMessage, ...], Meta(min_length=1, max_length=MESSAGES_MAX)]
    max_completion_tokens: Tokens | None = None
    logprobs: bool = False
    top_logprobs: Annotated[int, Meta(ge=0, le=TOP_LOGPROBS_MAX)] = 0
    tools: Annotated[list[dict[str, Any]], Meta(max_length=specs.TOOLS_MAX)] | None = None
    tool_choice: Literal["auto", "none"] = "auto"
    response_format: dict[str, Any] | None = None


class CompletionBody(_Generation, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/completions`."""

    prompt: str | Annotated[tuple[str, ...], Meta(min_length=1, max_length=1)]
    logprobs: Annotated[int, Meta(ge=0, le=COMPLETION_LOGPROBS_MAX)] | None = None


class EmbeddingBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/embeddings`."""

    model: Model
    input: str | Annotated[tuple[str, ...], Meta(min_length=1, max_length=INPUTS_MAX)]
    encoding_format: Literal["float", "base64"] = "float"
    user: Annotated[str, Meta(max_length=256)] = ""
    parallelix: ParallelixOptions = ParallelixOptions()


def chat_spec(body: ChatBody) -> RequestSpec:
    _refuse_stream_options_without_stream(body)
    if body.top_logprobs and not body.logprobs:
        raise BadRequest("top_logprobs: needs logprobs to be true", code="invalid_request", param="top_logprobs")
    max_tokens = _agreed_max_tokens(body)
    # OpenAI defines "none" as: the model sees no tools.
    tools = specs.tools_text(body.tools)
    payload = work.Payload(
        kind="chat",
        model=body.model,
        messages=specs.chat_messages(body.messages),
        tools=tools if body.tool_choice == "auto" else "",
        response_format=specs.grammar(body.response_format),
        sampling=specs.sampling(body, max_tokens=max_tokens, top_logprobs=body.top_logprobs),
    )
    return _spec(payload, body.parallelix, max_tokens=max_tokens, logprobs=body.logprobs)


def completion_spec(body: CompletionBody) -> RequestSpec:
    _refuse_stream_options_without_stream(body)
    prompt = body.prompt if isinstance(body.prompt, str) else body.prompt[0]
    if not prompt:
        raise BadRequest("prompt: is empty; give text", code="invalid_request", param="prompt")
    payload = work.Payload(
        kind="completion",
        model=body.model,
        prompt=prompt,
        sampling=specs.sampling(body, max_tokens=body.max_tokens, top_logprobs=body.logprobs or 0),
    )
    return _spec(payload, body.parallelix, max_tokens=body.max_tokens, logprobs=body.logprobs is not None)


def embedding_spec(body: EmbeddingBody) -> RequestSpec:
    payload = work.Payload(
        kind="embedding",
        model=body.model,
        inputs=specs.embedding_inputs(body.input),
        sampling=work.Sampling(max_tokens=0),
    )
    return _spec(payload, body.parallelix, max_tokens=None, logprobs=False)


def _spec(payload: work.Payload, options: ParallelixOptions, *, max_tokens: int | None, logprobs: bool) -> RequestSpec:
    return RequestSpec(
        payload=payload,
        hardware_tier=options.hardware_tier,
        priority=options.priority,
        deadline_seconds=options.deadline_seconds,
        queue_seconds=options.queue_seconds,
        max_tokens=max_tokens,
        features=specs.features_of(payload, logprobs=logprobs),
        message_count=len(payload.messages),
        credit_account=options.credit_account,
        verification=options.verification,
    )


def _agreed_max_tokens(body: ChatBody) -> int | None:
    old, new = body.max_tokens, body.max_completion_tokens
    if old is not None and new is not None and old != new:
        raise BadRequest(
            f"max_tokens: {old} and max_completion_tokens: {new} are two names of one bound; give one of them",
            code="invalid_request",
            param="max_tokens",
        )
    return new if new is not None else old


def _refuse_stream_options_without_stream(body: _Generation) -> None:
    if body.stream_options is not None and not body.stream:
        raise BadRequest(
            "stream_options: is allowed only when stream is true", code="invalid_request", param="stream_options"
        )


class Unsupported(msgspec.Struct, frozen=True):
    """A field of OpenAI's that nothing here can honour, the values that ask for nothing, and why."""

    reason: str
    neutral: tuple[Any, ...] = ()


_ONE_ANSWER = Unsupported("a request gets one answer; send several requests", (1,))
_NO_BIAS = Unsupported("the runtimes cannot bias single tokens", ({},))
_TEXT_ONLY = Unsupported("the network's runtimes read and write text only")
_NOT_STORED = Unsupported("answers are kept sealed for their requester, never for training or listing", (False,))
_ONE_TIER = Unsupported("ask for a priority in parallelix.priority instead", ("auto", "default"))
_NO_CACHE = Unsupported("the network offers no prompt cache")

CHAT_UNSUPPORTED: dict[str, Unsupported] = {
    "n": _ONE_ANSWER,
    "logit_bias": _NO_BIAS,
    "audio": _TEXT_ONLY,
    "modalities": Unsupported(_TEXT_ONLY.reason, (["text"],)),
    "parallel_tool_calls": Unsupported("the runtimes cannot hold a model to one tool call at a time", (True,)),
    "store": _NOT_STORED,
    "prediction": Unsupported("the runtimes take no predicted output"),
    "reasoning_effort": Unsupported("the runtimes cannot set how long a model thinks"),
    "verbosity": Unsupported("the runtimes cannot set how much a model says; use max_tokens"),
    "service_tier": _ONE_TIER,
    "web_search_options": Unsupported("nodes have no access to the web"),
    "functions": Unsupported("is the old name of tools; use tools"),
    "function_call": Unsupported("is the old name of tool_choice; use tool_choice"),
    "tool_choice": Unsupported("the runtimes cannot force a tool call; use auto or none", ("auto", "none")),
    "prompt_cache_key": _NO_CACHE,
    "prompt_cache_retention": _NO_CACHE,
    "moderation": Unsupported("the network does not moderate"),
    "safety_identifier": Unsupported("nobody here reads it; use user"),
}
COMPLETION_UNSUPPORTED: dict[str, Unsupported] = {
    "n": _ONE_ANSWER,
    "logit_bias": _NO_BIAS,
    "best_of": Unsupported("a request gets one answer; send several requests", (1,)),
    "echo": Unsupported("the prompt is not sent back; join it with the answer yourself", (False,)),
    "suffix": Unsupported("the runtimes cannot fill in the middle", ("",)),
}
EMBEDDING_UNSUPPORTED: dict[str, Unsupported] = {
    "dimensions": Unsupported("the runtimes give a model's whole vector; cut it yourself"),
}
_MESSAGE_ALWAYS_EMPTY: dict[str, list[str] | None] = {
    "annotations": [],
    "refusal": None,
    "audio": None,
    "function_call": None,
}
"""What the official SDK's own messages carry when they are sent back; only these values mean nothing."""

B = TypeVar("B", bound=msgspec.Struct)


class Shape(Generic[B]):
    """Reads one kind of body: at once when it is plain, with a second look when it is not."""

    def __init__(self, kind: type[B], unsupported: dict[str, Unsupported]) -> None:
        self.kind = kind
        self._decoder = msgspec.json.Decoder(kind)
        self._unsupported = unsupported

    def read(self, body: bytes) -> B:
        """Raises `BadRequest`, or `UnsupportedParameter` naming the field."""
        try:
            value = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            value = self._second_look(body, error)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            return limits.decode(body, self._decoder)
        limits.refuse_repeated_keys(body)
        return value

    def _second_look(self, body: bytes, first: msgspec.ValidationError) -> B:
        given = limits.decode(body, _ANYTHING)
        if not isinstance(given, dict):
            raise limits.mistyped(first)
        fields = self._without_neutral(cast("dict[str, Any]", given))
        try:
            return msgspec.convert(fields, self.kind)
        except msgspec.ValidationError as error:
            self._explain(error, fields)

    def _without_neutral(self, fields: dict[str, Any]) -> dict[str, Any]:
        kept: dict[str, Any] = {}
        for name, value in fields.items():
            rule = self._unsupported.get(name)
            known = rule is not None or name in self.kind.__struct_fields__
            if known and value is None:
                continue
            if rule is not None and not _is_neutral(value, rule):
                raise UnsupportedParameter(f"{name}: is not supported: {rule.reason}; leave it out", param=name)
            if name in self.kind.__struct_fields__ or rule is None:
                kept[name] = value
        if isinstance(kept.get("messages"), list):
            kept["messages"] = [_without_empty(message) for message in cast("list[Any]", kept["messages"])]
        return kept

    def _explain(self, error: msgspec.ValidationError, fields: dict[str, Any]) -> NoReturn:
        place = limits.place_of(error)
        if place.endswith("].type") and "content[" in place:
            raise UnsupportedParameter(f"{place}: only text parts are supported; send text", param=place) from error
        if place.startswith(("input", "prompt")) and _holds_tokens(fields.get(place.partition("[")[0])):
            name = place.partition("[")[0]
            raise UnsupportedParameter(f"{name}: token numbers are not supported; send text", param=name) from error
        name = str(error).partition("unknown field `")[2].partition("`")[0]
        if name:
            path = f"{place}.{name}" if place else name
            raise UnsupportedParameter(f"{path[:160]}: is not a parameter of this call", param=path[:160]) from error
        raise limits.mistyped(error) from error


_ANYTHING = msgspec.json.Decoder[Any](Any)


def _is_neutral(value: Any, rule: Unsupported) -> bool:
    return any(value == each and type(value) is type(each) for each in rule.neutral)


def _without_empty(message: Any) -> Any:
    if not isinstance(message, dict):
        return message
    fields = cast("dict[str, Any]", message)
    known = {*ChatMessage.__struct_fields__}
    return {
        name: value
        for name, value in fields.items()
        if not (name in known and value is None)
        and not (name in _MESSAGE_ALWAYS_EMPTY and value in (None, _MESSAGE_ALWAYS_EMPTY[name]))
    }


def _holds_tokens(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(each, int | list) for each in cast("list[Any]", value))


CHAT = Shape(ChatBody, CHAT_UNSUPPORTED)
COMPLETION = Shape(CompletionBody, COMPLETION_UNSUPPORTED)
EMBEDDING = Shape(EmbeddingBody, EMBEDDING_UNSUPPORTED)


def read_chat(body: bytes) -> tuple[ChatBody, RequestSpec]:
    """Raises `BadRequest`; so do the next two."""
    read = CHAT.read(body)
    return read, chat_spec(read)


def read_completion(body: bytes) -> tuple[CompletionBody, RequestSpec]:
    read = COMPLETION.read(body)
    return read, completion_spec(read)


def read_embedding(body: bytes) -> tuple[EmbeddingBody, RequestSpec]:
    read = EMBEDDING.read(body)
    return read, embedding_spec(read)
