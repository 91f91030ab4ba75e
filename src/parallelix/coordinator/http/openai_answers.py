"""What the OpenAI shapes answer: Structs with OpenAI's names, and pure functions that fill them from an outcome.

Each generation is rendered by one object, which knows its request and remembers how much text it has shown.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import ClassVar, Generic, Literal, Protocol, TypeVar

import msgspec

from parallelix.protocol import work
from parallelix.protocol.encoding import from_base64url
from parallelix.protocol.requests import AuditState

LOGPROB_UNKNOWN = -9999.0
"""OpenAI's own way to say that a log-probability is not known; its clients require a number."""


class ParallelixAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What the network adds to each answer. `receipt` is the path of the receipt."""

    request_id: str
    record_hash: str | None
    charge_wei: str
    receipt: str
    audit: AuditState = "off"


class TokenUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]


class TokenLogprob(msgspec.Struct, frozen=True, kw_only=True):
    token: str
    logprob: float
    bytes: tuple[int, ...]
    top_logprobs: tuple[TopLogprob, ...]


class ChatLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    content: tuple[TokenLogprob, ...]
    refusal: None = None


class CompletionLogprobs(msgspec.Struct, frozen=True, kw_only=True):
    tokens: tuple[str, ...]
    token_logprobs: tuple[float, ...]
    top_logprobs: tuple[dict[str, float], ...]
    text_offset: tuple[int, ...]


class Function(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    type: Literal["function"] = "function"
    function: Function


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    index: int
    id: str
    type: Literal["function"] = "function"
    function: Function


class AssistantMessage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: str
    content: str | None
    refusal: str | None
    tool_calls: tuple[ToolCall, ...] = ()


class ChatChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    message: AssistantMessage
    logprobs: ChatLogprobs | None
    finish_reason: str


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: tuple[ChatChoice, ...]
    usage: TokenUsage
    parallelix: ParallelixAnswer


class Delta(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    role: str | msgspec.UnsetType = msgspec.UNSET
    content: str | msgspec.UnsetType | None = msgspec.UNSET
    tool_calls: tuple[ToolCallDelta, ...] = ()


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: str | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    object: Literal["chat.completion.chunk"] = "chat.completion.chunk"
    created: int
    model: str
    choices: tuple[ChunkChoice, ...]
    usage: TokenUsage | msgspec.UnsetType | None = msgspec.UNSET
    parallelix: ParallelixAnswer | msgspec.UnsetType = msgspec.UNSET


class CompletionChoice(msgspec.Struct, frozen=True, kw_only=True):
    index: int = 0
    text: str
    logprobs: CompletionLogprobs | None = None
    finish_reason: str | None = None


class Completion(msgspec.Struct, frozen=True, kw_only=True):
    """The whole answer and, with `usage` and `parallelix` only at the end, each chunk of a stream."""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: tuple[CompletionChoice, ...]
    usage: TokenUsage | msgspec.UnsetType | None = msgspec.UNSET
    parallelix: ParallelixAnswer | msgspec.UnsetType = msgspec.UNSET


class Embedding(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | str


class EmbeddingUsage(msgspec.Struct, frozen=True, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class EmbeddingList(msgspec.Struct, frozen=True, kw_only=True):
    object: Literal["list"] = "list"
    data: tuple[Embedding, ...]
    model: str
    usage: EmbeddingUsage
    parallelix: ParallelixAnswer


class ErrorDetail(msgspec.Struct, frozen=True, kw_only=True):
    message: str
    type: str
    code: str
    param: str | None


class ErrorAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """Every refusal of an OpenAI shape, as OpenAI's own clients read it."""

    error: ErrorDetail


class Finished(msgspec.Struct, frozen=True, kw_only=True):
    """What an outcome says, once it is known to be a success."""

    content: work.ResultContent
    entries: tuple[work.Entry, ...]
    usage: work.Usage
    parallelix: ParallelixAnswer


def usage_of(usage: work.Usage) -> TokenUsage:
    return TokenUsage(
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.prompt_tokens + usage.completion_tokens,
    )


C = TypeVar("C", bound=msgspec.Struct)


class Rendering(Protocol):
    """One generation's answers, whole or in chunks. Chunks are JSON texts without framing."""

    def whole(self, finished: Finished) -> msgspec.Struct: ...

    def opening(self) -> list[msgspec.Struct]: ...

    def delta(self, text: str, entries: Sequence[work.Entry]) -> msgspec.Struct: ...

    def closing(self, finished: Finished) -> list[msgspec.Struct]: ...


class _Rendering(Generic[C]):
    prefix: ClassVar[str]

    def __init__(
        self, request_id: str, *, created: int, model: str, logprobs: bool, top_logprobs: int, include_usage: bool
    ) -> None:
        self.id = f"{self.prefix}-{request_id}"
        self.created = created
        self.model = model
        self._logprobs = logprobs
        self._top_logprobs = top_logprobs
        self._include_usage = include_usage
        # With include_usage OpenAI puts a null usage on every chunk but the last.
        self._no_usage = None if include_usage else msgspec.UNSET
        self._shown_bytes = 0
        self._shown_characters = 0

    def _count(self, text: str) -> int:
        """The offset in characters of this text, which is now shown."""
        offset = self._shown_characters
        self._shown_characters += len(text)
        self._shown_bytes += len(text.encode())
        return offset

    def _unshown(self, content: work.ResultContent) -> str:
        return content.text.encode()[self._shown_bytes :].decode(errors="replace")


class ChatRendering(_Rendering[ChatCompletionChunk]):
    prefix = "chatcmpl"

    def whole(self, finished: Finished) -> ChatCompletion:
        content = finished.content
        message = AssistantMessage(
            role="assistant",
            content=None if content.tool_calls and not content.text else content.text,
            refusal=None,
            tool_calls=tuple(
                ToolCall(id=call.id, function=Function(name=call.name, arguments=call.arguments))
                for call in content.tool_calls
            ),
        )
        choice = ChatChoice(
            message=message, logprobs=self._logprobs_of(finished.entries), finish_reason=content.finish_reason
        )
        return ChatCompletion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=(choice,),
            usage=usage_of(finished.usage),
            parallelix=finished.parallelix,
        )

    def opening(self) -> list[msgspec.Struct]:
        return [self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")))]

    def delta(self, text: str, entries: Sequence[work.Entry]) -> ChatCompletionChunk:
        self._count(text)
        return self._chunk(ChunkChoice(delta=Delta(content=text), logprobs=self._logprobs_of(entries)))

    def closing(self, finished: Finished) -> list[msgspec.Struct]:
        content = finished.content
        chunks: list[msgspec.Struct] = []
        rest = self._unshown(content)
        if rest:
            chunks.append(self.delta(rest, () if self._shown_bytes else finished.entries))
        if content.tool_calls:
            calls = tuple(
                ToolCallDelta(index=index, id=call.id, function=Function(name=call.name, arguments=call.arguments))
                for index, call in enumerate(content.tool_calls)
            )
            chunks.append(self._chunk(ChunkChoice(delta=Delta(tool_calls=calls))))
        last = self._chunk(ChunkChoice(delta=Delta(), finish_reason=content.finish_reason))
        chunks.append(msgspec.structs.replace(last, parallelix=finished.parallelix))
        if self._include_usage:
            chunks.append(
                ChatCompletionChunk(
                    id=self.id,
                    created=self.created,
                    model=self.model,
                    choices=(),
                    usage=usage_of(finished.usage),
                    parallelix=finished.parallelix,
                )
            )
        return chunks

    def _chunk(self, choice: ChunkChoice) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self.id, created=self.created, model=self.model, choices=(choice,), usage=self._no_usage
        )

    def _logprobs_of(self, entries: Sequence[work.Entry]) -> ChatLogprobs | None:
        if not self._logprobs:
            return None
        return ChatLogprobs(content=tuple(self._token(entry) for entry in entries))

    def _token(self, entry: work.Entry) -> TokenLogprob:
        return TokenLogprob(
            token=entry.text,
            logprob=_known(entry.logprob),
            bytes=tuple(entry.text.encode()),
            top_logprobs=tuple(
                TopLogprob(token=text, logprob=logprob, bytes=tuple(text.encode()))
                for text, logprob in entry.top[: self._top_logprobs]
            ),
        )


class CompletionRendering(_Rendering[Completion]):
    prefix = "cmpl"

    def whole(self, finished: Finished) -> Completion:
        content = finished.content
        choice = CompletionChoice(
            text=content.text,
            logprobs=self._logprobs_of(finished.entries, offset=0),
            finish_reason=content.finish_reason,
        )
        return self._completion((choice,), usage=usage_of(finished.usage), parallelix=finished.parallelix)

    def opening(self) -> list[msgspec.Struct]:
        return []

    def delta(self, text: str, entries: Sequence[work.Entry]) -> Completion:
        offset = self._count(text)
        return self._completion((CompletionChoice(text=text, logprobs=self._logprobs_of(entries, offset=offset)),))

    def closing(self, finished: Finished) -> list[msgspec.Struct]:
        content = finished.content
        rest = self._unshown(content)
        entries = finished.entries if rest and not self._shown_bytes else ()
        choice = CompletionChoice(
            text=rest,
            logprobs=self._logprobs_of(entries, offset=0) if entries else None,
            finish_reason=content.finish_reason,
        )
        chunks: list[msgspec.Struct] = [self._completion((choice,), parallelix=finished.parallelix)]
        if self._include_usage:
            chunks.append(self._completion((), usage=usage_of(finished.usage), parallelix=finished.parallelix))
        return chunks

    def _completion(
        self,
        choices: tuple[CompletionChoice, ...],
        *,
        usage: TokenUsage | msgspec.UnsetType | None = msgspec.UNSET,
        parallelix: ParallelixAnswer | msgspec.UnsetType = msgspec.UNSET,
    ) -> Completion:
        return Completion(
            id=self.id,
            created=self.created,
            model=self.model,
            choices=choices,
            usage=self._no_usage if usage is msgspec.UNSET else usage,
            parallelix=parallelix,
        )

    def _logprobs_of(self, entries: Sequence[work.Entry], *, offset: int) -> CompletionLogprobs | None:
        if not self._logprobs:
            return None
        offsets: list[int] = []
        for entry in entries:
            offsets.append(offset)
            offset += len(entry.text)
        return CompletionLogprobs(
            tokens=tuple(entry.text for entry in entries),
            token_logprobs=tuple(_known(entry.logprob) for entry in entries),
            top_logprobs=tuple(dict(entry.top[: self._top_logprobs]) for entry in entries),
            text_offset=tuple(offsets),
        )


def embedding_list(finished: Finished, *, model: str, in_base64: bool) -> EmbeddingList:
    vectors = finished.content.embeddings
    return EmbeddingList(
        data=tuple(
            Embedding(index=index, embedding=_base64(packed) if in_base64 else work.unpack_vector(packed))
            for index, packed in enumerate(vectors)
        ),
        model=model,
        usage=EmbeddingUsage(prompt_tokens=finished.usage.prompt_tokens, total_tokens=finished.usage.prompt_tokens),
        parallelix=finished.parallelix,
    )


def _base64(packed: str) -> str:
    return base64.b64encode(from_base64url(packed, name="embedding")).decode()


def _known(logprob: float | None) -> float:
    return LOGPROB_UNKNOWN if logprob is None else logprob


ERROR_TYPES: dict[int, str] = {
    401: "authentication_error",
    402: "insufficient_quota",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
}


def error_of(status: int, code: str, message: str, param: str | None) -> ErrorAnswer:
    kind = ERROR_TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    return ErrorAnswer(error=ErrorDetail(message=message, type=kind, code=code, param=param))
