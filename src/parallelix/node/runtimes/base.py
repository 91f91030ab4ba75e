"""What the daemon asks of a runtime: which models it has, and to generate or embed with one of them.

A runtime is given decrypted work and never sees an attempt, a key or the coordinator. Cancelling the iteration
(`aclose`, or cancelling the task that awaits it) stops the generation in the runtime too.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, TypeAlias

Finish: TypeAlias = Literal["stop", "length", "tool_calls"]


class RuntimeFailed(Exception):
    """The runtime could not do the work: down, out of memory, or answered with an error."""


class RuntimeUnsupported(RuntimeFailed):
    """The runtime has no such feature (a grammar, tools, embeddings); another runtime may."""


class ModelMissing(RuntimeFailed):
    """No model of this name or digest is installed in the runtime."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One installed model. `digest` is the SHA-256 of its weights file (GGUF), as 64 hex digits: the same weights
    have the same digest in every runtime."""

    name: str
    digest: str
    context_tokens: int
    size_bytes: int
    embeds: bool
    features: tuple[str, ...]
    """Any of "chat", "logprobs", "probe", "tools", "grammar", "embeddings"."""


# What a request that says nothing gets, the same in every runtime, so that who serves it does not show in the text.
# They are llama.cpp's own; a modelfile's are not used, since a model's digest does not cover them.
TEMPERATURE_DEFAULT = 0.8
TOP_P_DEFAULT = 0.95
TOP_K_DEFAULT = 40
MIN_P_DEFAULT = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are picked. None means the default above, and for `seed` a fresh one each time.

    No runtime adds a repetition penalty of its own: tokens are drawn from what the request describes, nothing else.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    stop: tuple[str, ...] = ()
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    top_logprobs: int = 5
    """How many alternatives to ask for at each token, 0 to 20. The chosen token's own is always returned."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One whole inference. Exactly one of `prompt` (plain completion, no template) and `messages` (chat) is given.

    `messages` and `tools` have the OpenAI shapes; `response_format` is None, {"type": "json_object"} or
    {"type": "json_schema", "json_schema": {"schema": {...}}}.
    """

    model: str
    prompt: str | None = None
    messages: Sequence[dict[str, Any]] | None = None
    tools: Sequence[dict[str, Any]] | None = None
    response_format: dict[str, Any] | None = None
    sampling: Sampling = field(default_factory=lambda: Sampling(max_tokens=256))


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """One entry as the runtime reports it: usually one token; several where bytes of one character were held back.

    A token whose text comes only with a later one, or in a tool call, has an empty text and its own log-probability.
    """

    text: str
    logprob: float | None = None
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The last item of a generation."""

    finish: Finish
    prompt_tokens: int
    completion_tokens: int
    tool_calls: tuple[dict[str, Any], ...] = ()
    """OpenAI shape: {"id", "type": "function", "function": {"name", "arguments": JSON text}}."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What the model expects next at one position of an answer, whatever was picked there."""

    prompt_tokens: int
    """Tokens before the position as the runtime counts them, prompt included, also those it had in its cache."""
    entry: TokenEntry
    """The most likely token, and up to 20 alternatives of which it is the first. Without either where the position is
    beyond the context."""


class Runtime(Protocol):
    name: str
    """"ollama" or "llama_cpp"; goes into the capability manifest."""

    async def version(self) -> str:
        """The runtime's version. Raises RuntimeFailed when it cannot be reached."""
        ...

    async def models(self) -> list[Model]: ...

    def generate(self, work: Generation) -> AsyncIterator[TokenEntry | Finished]:
        """Entries as they come, then exactly one `Finished`. The entries' texts concatenate to the result's text.

        What a model thinks before it answers is not part of the text and has no entries; runtimes ask it not to think.
        Raises RuntimeFailed or one of its kinds, also after entries were given: those count for nothing then.
        """
        ...

    def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncIterator[Probed]:
        """One item for each of `positions`, in their order: what comes next after the prompt of `work` and so many
        UTF-8 bytes of `text`, as its answer's beginning. They rise, so that each finds most of its prompt in the cache.

        The numbers are the model's own: sampling, stop sequences and `response_format` of `work` do not enter.
        Raises RuntimeFailed or one of its kinds, RuntimeUnsupported also for positions that do not rise, lie outside
        the text or inside a character.
        """
        ...

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        """One vector a text, and the number of prompt tokens."""
        ...

    async def aclose(self) -> None: ...
