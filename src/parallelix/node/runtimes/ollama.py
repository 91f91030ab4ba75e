"""Ollama over its HTTP API.

How it really behaves, and what follows here (0.17.4):
- A prompt above its context window is cut without a word, unless `truncate` and `shift` are false: they are.
- Each `num_ctx` other than the loaded one reloads the model: one number a model, always sent.
- `stop` in a request replaces the modelfile's own stop sequences: both are sent together.
- A model that thinks does so unless told otherwise; its thoughts cannot be audited as text, and a requester would pay
  for tokens nobody sees: it is told not to. Thoughts that come all the same are left out of the text and the entries.
- After 30 equal pieces of text in a row the answer ends early, cleanly, and without its last line.
- A template may or may not go on with an answer that was begun. So a position within an answer is probed with what
  the chat call itself renders, and the beginning after it, as a raw prompt.
- Whether the end of a sequence or half a character is picked, the log-probabilities of that pick are not shown. A
  schema forces another pick, and leaves the numbers as they are.
- Names may stand for models on somebody else's servers: those are no models of this node.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, cast

import httpx
import msgspec
from msgspec import Meta

from parallelix.node.runtimes import wire
from parallelix.node.runtimes.base import (
    MIN_P_DEFAULT,
    TEMPERATURE_DEFAULT,
    TOP_K_DEFAULT,
    TOP_P_DEFAULT,
    Finish,
    Finished,
    Generation,
    Model,
    ModelMissing,
    Probed,
    RuntimeFailed,
    RuntimeUnsupported,
    Sampling,
    TokenEntry,
)
from parallelix.node.runtimes.entries import Pairing, Scored, at_most_zero
from parallelix.node.runtimes.requests import (
    TOP_LOGPROBS_MAX,
    Item,
    beginnings,
    held_to_json,
    most_likely,
    require_sound,
    schema_of,
    seed_of,
    text_of,
)

LOGPROBS_VERSION = (0, 12, 11)
"""The first version that returns log-probabilities."""
SAFE_VERSION = (0, 17, 1)
"""Versions before it let anybody who reaches the port read the process's memory (CVE-2026-7482)."""
CONTEXT_TOKENS_MAX_DEFAULT = 8192
"""A model of 3 billion weights takes near 1 GB for a context of this length, for each slot."""

MODELS_MAX = 1000
# /api/show repeats licences and templates; embeddings are 12 bytes a number, 4096 numbers a text.
_ANSWER_BYTES_MAX = 16 * 1024 * 1024
_EMBEDDINGS_BYTES_MAX = 256 * 1024 * 1024
# Models come and go by hand. A name that means other weights since the last look is served as before for so long.
_LOOK_SECONDS = 5.0
_REPETITIONS_BEFORE_ABORT = 30
# Every vocabulary can write one, and a digit never ends inside a character.
_A_DIGIT = {"type": "integer"}
_WAY_OUT = "check that it runs (`ollama serve`), and its log"

# Its newer engine samples these without penalties, and does not say so.
_WITHOUT_PENALTIES = re.compile(
    r"deepseek2|deepseekocr|gemma3n?|gpt-?oss|llama4|mistral3|mllama|nemotron_h(_moe)?|olmo3|qwen25vl|qwen3(5|vl)?(moe)?"
    r"|qwen3next|glm4moelite|glmocr|lfm2(moe)?"
)
# Told not to think, it thinks a little less.
_THINKS_ALWAYS = re.compile(r"gpt-?oss")
_WEIGHTS = re.compile(r"^FROM\s+\S.*[\\/]sha256-([0-9a-f]{64})\s*$", re.MULTILINE)
_ADAPTER = re.compile(r"^ADAPTER\s", re.MULTILINE)
_STOP_PARAMETER = re.compile(r'^stop\s+(".*")\s*$', re.MULTILINE)

_PROBING = Sampling(max_tokens=1, temperature=0.0, top_logprobs=TOP_LOGPROBS_MAX)

AnswerT = TypeVar("AnswerT")
_Ask: TypeAlias = tuple[str, dict[str, Any]]
"""A path and the body sent to it."""
Count = Annotated[int, Meta(ge=0)]


class _Version(msgspec.Struct):
    version: str


class _Tag(msgspec.Struct):
    name: str
    digest: str
    size: Count = 0
    remote_host: str = ""
    remote_model: str = ""


class _Tags(msgspec.Struct):
    models: list[_Tag] | None = None


class _Show(msgspec.Struct):
    modelfile: str = ""
    parameters: str = ""
    template: str = ""
    parser: str = ""
    remote_host: str = ""
    remote_model: str = ""
    model_info: dict[str, Any] | None = None
    capabilities: list[str] | None = None


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Alternative] | None = None


class _Function(msgspec.Struct):
    name: str
    arguments: dict[str, Any]


class _ToolCall(msgspec.Struct):
    function: _Function
    id: str = ""


class _Message(msgspec.Struct):
    content: str = ""
    thinking: str = ""
    tool_calls: list[_ToolCall] | None = None


class _Line(msgspec.Struct):
    """One line of /api/generate (`response`, `thinking`) or /api/chat (`message`)."""

    response: str = ""
    thinking: str = ""
    message: _Message | None = None
    logprobs: list[_Logprob] | None = None
    done: bool = False
    done_reason: str = ""
    prompt_eval_count: Count = 0
    eval_count: Count = 0
    error: str | None = None


class _Rendered(msgspec.Struct):
    rendered_template: str


class _Rendering(msgspec.Struct, rename={"debug": "_debug_info"}):
    debug: _Rendered | None = None


class _Embeddings(msgspec.Struct):
    embeddings: list[list[float]]
    prompt_eval_count: Count = 0


class _Failure(msgspec.Struct):
    error: str


class PullProgress(msgspec.Struct, frozen=True):
    """One step of a download. `completed` and `total` are bytes of the layer `digest`, 0 where nothing is counted."""

    status: str = ""
    digest: str = ""
    total: Count = 0
    completed: Count = 0


class _PullLine(msgspec.Struct):
    status: str = ""
    digest: str = ""
    total: Count = 0
    completed: Count = 0
    error: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFacts:
    """What `verify` says of an Ollama of some version."""

    numbers: tuple[int, ...]
    """Empty where the version cannot be read."""
    returns_logprobs: bool
    safe: bool
    advice: tuple[str, ...]


def judge_version(version: str) -> VersionFacts:
    """Whether an Ollama of this version is new enough, and what to do when it is not."""
    match = re.match(r"v?(\d+)\.(\d+)\.(\d+)", version)
    numbers = tuple(int(number) for number in match.groups()) if match else ()
    returns_logprobs, safe = numbers >= LOGPROBS_VERSION, numbers >= SAFE_VERSION
    advice: list[str] = []
    if not returns_logprobs:
        advice.append(f"Ollama {version} returns no log-probabilities: install {_dotted(LOGPROBS_VERSION)} or newer")
    if not safe:
        advice.append(
            f"Ollama {version} lets whoever reaches its port read its memory (CVE-2026-7482): "
            f"install {_dotted(SAFE_VERSION)} or newer"
        )
    return VersionFacts(numbers=numbers, returns_logprobs=returns_logprobs, safe=safe, advice=tuple(advice))


def _dotted(numbers: Iterable[int]) -> str:
    return ".".join(map(str, numbers))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Installed:
    """A model, and what its requests need beyond what the network is told."""

    model: Model
    thinks: bool
    penalties: bool
    stops: tuple[str, ...]


class Ollama:
    """Serves what is installed in one Ollama. `http` is the caller's: it is not closed here."""

    name = "ollama"

    def __init__(
        self,
        base_url: str,
        http: httpx.AsyncClient,
        *,
        context_tokens_max: int = CONTEXT_TOKENS_MAX_DEFAULT,
        monotonic_seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._http = http
        self._context_tokens_max = context_tokens_max
        self._monotonic_seconds = monotonic_seconds
        self._shown: dict[tuple[str, str], _Installed | None] = {}
        self._shown_version = ""
        self._looked_at: float | None = None

    async def version(self) -> str:
        return _decoded(_Version, await self._answer("GET", "/api/version")).version

    async def models(self) -> list[Model]:
        version = await self.version()
        if version != self._shown_version:
            self._shown, self._shown_version = {}, version
        tags = _decoded(_Tags, await self._answer("GET", "/api/tags")).models or []
        shown: dict[tuple[str, str], _Installed | None] = {}
        for tag in tags[:MODELS_MAX]:
            key = (tag.name, tag.digest)
            shown[key] = self._shown[key] if key in self._shown else await self._look_at(tag)
        self._shown, self._looked_at = shown, self._monotonic_seconds()
        return [installed.model for installed in shown.values() if installed is not None]

    async def _look_at(self, tag: _Tag) -> _Installed | None:
        if tag.remote_host or tag.remote_model:
            return None
        try:
            show = _decoded(_Show, await self._answer("POST", "/api/show", {"model": tag.name}))
        except ModelMissing:
            return None
        return _installed(
            tag,
            show,
            context_tokens_max=self._context_tokens_max,
            returns_logprobs=judge_version(self._shown_version).returns_logprobs,
        )

    async def generate(self, work: Generation) -> AsyncGenerator[Item]:
        require_sound(work)
        installed = await self._find(work.model)
        path, request = _request(work, installed)
        items = self._generate(path, request)
        if schema_of(work.response_format) is not None:
            items = held_to_json(items)
        async with aclosing(items):
            async for item in items:
                yield item

    async def _generate(self, path: str, request: dict[str, Any]) -> AsyncGenerator[Item]:
        reply = _Reply()
        async with aclosing(self._lines(path, request)) as lines:
            async for line in lines:
                for item in reply.add(_decoded(_Line, line)):
                    yield item
                if reply.finished:
                    return
        if reply.pieces <= _REPETITIONS_BEFORE_ABORT:
            raise RuntimeFailed(f"Ollama ended its answer before it was done: {_WAY_OUT}")
        yield reply.cut_short(prompt_tokens=await self._count_prompt(path, request))

    async def _count_prompt(self, path: str, request: dict[str, Any]) -> int:
        """Ask for one token more, from the cache, where an answer did not say how long its prompt was."""
        options = {**request["options"], "num_predict": 1}
        answer = await self._answer("POST", path, {**request, "stream": False, "logprobs": False, "options": options})
        return _decoded(_Line, answer).prompt_eval_count

    async def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[Probed]:
        require_sound(work)
        prefixes = beginnings(text, positions)
        installed = await self._find(work.model)
        _require_feature(installed.model, "probe")
        path, request = _request(replace(work, response_format=None, sampling=_PROBING), installed)
        request["stream"] = False
        prompt = work.prompt if path == "/api/generate" else await self._render(path, request)
        counted = 0
        for prefix in prefixes:
            raw = ("/api/generate", _raw(request, f"{prompt}{prefix}"))
            try:
                # Where nothing is begun yet, the ordinary call gives the count that an executor was given.
                probed = await self._predict(raw if prefix else (path, request), raw)
            except RuntimeUnsupported:
                if not counted:
                    raise
                # The prompt fits into the context, and this much of the answer does not.
                probed = Probed(prompt_tokens=counted, entry=TokenEntry(text=""))
            counted = probed.prompt_tokens
            yield probed

    async def _render(self, path: str, request: Mapping[str, Any]) -> str:
        """The prompt that the chat call gives the model."""
        answer = await self._answer(
            "POST", path, {**request, "_debug_render_only": True}, patience=wire.GENERATION_TIMEOUT
        )
        rendering = _decoded(_Rendering, answer).debug
        if rendering is None:
            raise RuntimeUnsupported("this Ollama does not tell how it renders a chat: use version 0.17.4")
        return rendering.rendered_template

    async def _predict(self, ask: _Ask, again: _Ask) -> Probed:
        line = _decoded(_Line, await self._answer("POST", *ask, patience=wire.GENERATION_TIMEOUT))
        if not line.logprobs:
            path, request = again
            answer = await self._answer("POST", path, {**request, "format": _A_DIGIT}, patience=wire.GENERATION_TIMEOUT)
            line = _decoded(_Line, answer)
        entry = most_likely(_scored(line.logprobs[0])) if line.logprobs else TokenEntry(text="")
        return Probed(prompt_tokens=line.prompt_eval_count, entry=entry)

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        installed = await self._find(model)
        if not installed.model.embeds:
            raise RuntimeUnsupported(f"{model} makes no embeddings: choose a model that has them (`ollama show`)")
        if not texts:
            return [], 0
        request = {
            "model": installed.model.name,
            "input": list(texts),
            "truncate": False,
            "options": {"num_ctx": installed.model.context_tokens},
        }
        answer = await self._answer(
            "POST", "/api/embed", request, bytes_max=_EMBEDDINGS_BYTES_MAX, patience=wire.GENERATION_TIMEOUT
        )
        embeddings = _decoded(_Embeddings, answer)
        if len(embeddings.embeddings) != len(texts):
            count = len(embeddings.embeddings)
            raise RuntimeFailed(f"Ollama returned {count} embeddings for {len(texts)} texts: {_WAY_OUT}")
        return embeddings.embeddings, embeddings.prompt_eval_count

    async def pull(self, name: str) -> AsyncGenerator[PullProgress]:
        """Download a model. Ends after the step "success"; raises RuntimeFailed when it cannot be had."""
        step = PullProgress()
        async with aclosing(self._lines("/api/pull", {"model": name})) as lines:
            async for line in lines:
                read = _decoded(_PullLine, line)
                if read.error is not None:
                    # Nothing of a request is in it, so it may be told whole.
                    reason = " ".join(read.error.split())[: wire.TOLD_CHARACTERS_MAX]
                    raise RuntimeFailed(f"Ollama could not pull {name}: {reason}")
                step = PullProgress(status=read.status, digest=read.digest, total=read.total, completed=read.completed)
                yield step
        if step.status != "success":
            raise RuntimeFailed(
                f"Ollama stopped pulling {name} at {step.status!r}: pull it again, it goes on from there"
            )

    async def aclose(self) -> None:
        """Nothing is held open between calls."""

    async def _find(self, wanted: str) -> _Installed:
        if self._looked_at is None or self._monotonic_seconds() - self._looked_at > _LOOK_SECONDS:
            await self.models()
        elif (found := self._match(wanted)) is not None:
            return found
        else:
            await self.models()
        if (found := self._match(wanted)) is None:
            raise ModelMissing(f"Ollama has no model {wanted!r}: pull it with `parallelix-node models pull {wanted}`")
        return found

    def _match(self, wanted: str) -> _Installed | None:
        names = {wanted, wanted if ":" in wanted.rpartition("/")[2] else f"{wanted}:latest"}
        for installed in self._shown.values():
            if installed is not None and (installed.model.name in names or installed.model.digest == wanted):
                return installed
        return None

    async def _answer(
        self,
        method: Literal["GET", "POST"],
        path: str,
        request: Mapping[str, Any] | None = None,
        *,
        bytes_max: int = _ANSWER_BYTES_MAX,
        patience: httpx.Timeout = wire.QUESTION_TIMEOUT,
    ) -> bytes:
        url = self._base_url + path
        with wire.foreign_errors(f"Ollama at {self._base_url}", way_out=_WAY_OUT):
            async with self._http.stream(method, url, json=request, timeout=patience) as response:
                content = await wire.body(response, bytes_max=bytes_max)
        if not response.is_success:
            raise _refusal(response.status_code, content)
        return content

    async def _lines(self, path: str, request: Mapping[str, Any]) -> AsyncGenerator[bytes]:
        url = self._base_url + path
        with wire.foreign_errors(f"Ollama at {self._base_url}", way_out=_WAY_OUT):
            async with self._http.stream("POST", url, json=request, timeout=wire.GENERATION_TIMEOUT) as response:
                if not response.is_success:
                    raise _refusal(response.status_code, await wire.body(response, bytes_max=_ANSWER_BYTES_MAX))
                async with aclosing(wire.lines(response)) as lines:
                    async for line in lines:
                        yield line


def _decoded(kind: type[AnswerT], content: bytes) -> AnswerT:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RuntimeFailed(f"Ollama sent what is not its API ({error}): check what listens at its address") from error


def _refusal(status: int, content: bytes) -> RuntimeFailed:
    try:
        message = wire.told(msgspec.json.decode(content, type=_Failure).error)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = "its answer is not its API"
    if status == HTTPStatus.NOT_FOUND:
        return ModelMissing("Ollama does not find the model: pull it again (`parallelix-node models pull`)")
    if status == HTTPStatus.BAD_REQUEST or message.startswith("invalid JSON schema"):
        return RuntimeUnsupported(f"Ollama refuses the request: {message}")
    return RuntimeFailed(f"Ollama failed with status {status}: {message}; {_WAY_OUT}")


def _installed(tag: _Tag, show: _Show, *, context_tokens_max: int, returns_logprobs: bool) -> _Installed | None:
    """None for what is no GGUF model of its own here: remote models, adapters over weights, other formats."""
    weights = _WEIGHTS.search(show.modelfile)
    if weights is None or show.remote_host or show.remote_model or _ADAPTER.search(show.modelfile):
        return None
    facts = show.model_info or {}
    architecture = str(facts.get("general.architecture", ""))
    capabilities = _capabilities(show, architecture)
    trained = facts.get(f"{architecture}.context_length")
    context_tokens = min(trained, context_tokens_max) if isinstance(trained, int) else context_tokens_max
    return _Installed(
        model=Model(
            name=tag.name,
            digest=weights.group(1),
            context_tokens=context_tokens,
            size_bytes=tag.size,
            embeds="embedding" in capabilities,
            features=_features(show, capabilities, architecture, returns_logprobs=returns_logprobs),
        ),
        thinks="thinking" in capabilities,
        penalties=_WITHOUT_PENALTIES.fullmatch(architecture) is None,
        stops=tuple(cast("str", json.loads(stop)) for stop in _STOP_PARAMETER.findall(show.parameters)),
    )


def _capabilities(show: _Show, architecture: str) -> frozenset[str]:
    if show.capabilities is not None:
        return frozenset(show.capabilities)
    # Versions before 0.6.4 do not say.
    pools = f"{architecture}.pooling_type" in (show.model_info or {})
    return frozenset({"embedding" if pools else "completion"})


def _features(
    show: _Show, capabilities: frozenset[str], architecture: str, *, returns_logprobs: bool
) -> tuple[str, ...]:
    features: list[str] = []
    if "completion" in capabilities:
        # Without a template it would run messages together, which no other node does alike.
        if show.template.strip() not in ("", "{{ .Prompt }}"):
            features.append("chat")
        if returns_logprobs:
            features.append("logprobs")
            # Thoughts are no part of an answer, and without them nobody comes to what the model saw.
            if _THINKS_ALWAYS.fullmatch(architecture) is None:
                features.append("probe")
        if "tools" in capabilities:
            features.append("tools")
        if not _loses_format(show, capabilities):
            features.append("grammar")
    if "embedding" in capabilities:
        features.append("embeddings")
    return tuple(features)


def _loses_format(show: _Show, capabilities: frozenset[str]) -> bool:
    """With a parser of its own for a thinking model, it applies a schema only after thoughts, and so never here."""
    return bool(show.parser) and "thinking" in capabilities


def _request(work: Generation, installed: _Installed) -> tuple[str, dict[str, Any]]:
    """The endpoint and its body. Raises RuntimeUnsupported for what the model here cannot do."""
    model = installed.model
    schema = schema_of(work.response_format)
    _require_feature(model, "grammar" if schema is not None else None)
    _require_feature(model, "tools" if work.tools else None)
    request: dict[str, Any] = {
        "model": model.name,
        "truncate": False,
        "shift": False,
        "options": _options(work.sampling, installed),
    }
    if "logprobs" in model.features:
        request |= {"logprobs": True, "top_logprobs": work.sampling.top_logprobs}
    if installed.thinks:
        request["think"] = False
    if schema is not None:
        request["format"] = schema
    if work.messages is None:
        return "/api/generate", request | {"prompt": work.prompt, "raw": True}
    _require_feature(model, "chat")
    if work.tools:
        request["tools"] = list(work.tools)
    return "/api/chat", request | {"messages": _messages(work.messages)}


def _raw(request: Mapping[str, Any], prompt: str) -> dict[str, Any]:
    """The same call for a prompt that is rendered already. Stop sequences would hide what they end."""
    kept = {key: value for key, value in request.items() if key not in ("messages", "tools")}
    return kept | {"prompt": prompt, "raw": True, "options": {**request["options"], "stop": []}}


def _require_feature(model: Model, feature: str | None) -> None:
    if feature is not None and feature not in model.features:
        raise RuntimeUnsupported(f"{model.name} has no {feature} in this Ollama: choose another model or leave it out")


def _options(sampling: Sampling, installed: _Installed) -> dict[str, Any]:
    options: dict[str, Any] = {
        "num_ctx": installed.model.context_tokens,
        "num_predict": sampling.max_tokens,
        "temperature": TEMPERATURE_DEFAULT if sampling.temperature is None else sampling.temperature,
        "top_p": TOP_P_DEFAULT if sampling.top_p is None else sampling.top_p,
        "top_k": TOP_K_DEFAULT if sampling.top_k is None else sampling.top_k,
        "min_p": MIN_P_DEFAULT if sampling.min_p is None else sampling.min_p,
        "repeat_penalty": 1.0,
        "presence_penalty": sampling.presence_penalty or 0.0,
        "frequency_penalty": sampling.frequency_penalty or 0.0,
        "seed": -1 if sampling.seed is None else seed_of(sampling.seed),
    }
    if (sampling.presence_penalty or sampling.frequency_penalty) and not installed.penalties:
        raise RuntimeUnsupported(f"Ollama runs {installed.model.name} without penalties: leave them out")
    if sampling.stop:
        options["stop"] = [*installed.stops, *sampling.stop]
    return options


def _messages(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """From OpenAI's shape to Ollama's: arguments are objects, and a tool's answer names the tool."""
    tool_names: dict[str, str] = {}
    converted: list[dict[str, Any]] = []
    for message in messages:
        plain: dict[str, Any] = {"role": message["role"], "content": text_of(message.get("content"))}
        if calls := message.get("tool_calls"):
            plain["tool_calls"] = [_called(call) for call in calls]
            tool_names |= {call.get("id", ""): call["function"]["name"] for call in calls}
        if message["role"] == "tool":
            plain["tool_name"] = tool_names.get(message.get("tool_call_id", ""), message.get("name", ""))
        converted.append(plain)
    return converted


def _called(call: Mapping[str, Any]) -> dict[str, Any]:
    function: Mapping[str, Any] = call["function"]
    return {"function": {"name": function["name"], "arguments": json.loads(function["arguments"])}}


@dataclass(slots=True)
class _Reply:
    """Turns an answer's lines into entries and, at its last line, `Finished`."""

    pieces: int = 0
    tokens: int = 0
    finished: bool = False
    _pairing: Pairing = field(default_factory=Pairing)
    _tool_calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])

    def add(self, line: _Line) -> list[Item]:
        if line.error is not None:
            raise RuntimeFailed(f"Ollama broke off: {wire.told(line.error)}; {_WAY_OUT}")
        self.pieces += 1
        self.tokens += len(line.logprobs) if line.logprobs else 1
        message = line.message or _Message(content=line.response, thinking=line.thinking)
        items: list[Item] = [*self._entries(message, line.logprobs or [])]
        if line.done:
            items.append(self._finish(line))
        return items

    def _entries(self, message: _Message, logprobs: list[_Logprob]) -> list[TokenEntry]:
        if message.thinking and not message.content:
            self._pairing.forget()
            return []
        entries = self._pairing.add(message.content, map(_scored, logprobs))
        if message.tool_calls:
            entries += self._pairing.without_text()
            self._tool_calls += [
                _openai_call(call, index=index) for index, call in enumerate(message.tool_calls, len(self._tool_calls))
            ]
        return entries

    def _finish(self, line: _Line) -> Finished:
        if line.done_reason not in ("stop", "length", ""):
            raise RuntimeFailed(f"Ollama ended with {line.done_reason!r} instead of an answer: {_WAY_OUT}")
        self.finished = True
        finish: Finish = "length" if line.done_reason == "length" else "stop"
        return Finished(
            finish="tool_calls" if self._tool_calls else finish,
            prompt_tokens=line.prompt_eval_count,
            completion_tokens=line.eval_count,
            tool_calls=tuple(self._tool_calls),
        )

    def cut_short(self, *, prompt_tokens: int) -> Finished:
        return Finished(finish="length", prompt_tokens=prompt_tokens, completion_tokens=self.tokens)


def _scored(logprob: _Logprob) -> Scored:
    return Scored(
        token=logprob.token,
        logprob=at_most_zero(logprob.logprob),
        top=tuple((other.token, at_most_zero(other.logprob)) for other in logprob.top_logprobs or ()),
    )


def _openai_call(call: _ToolCall, *, index: int) -> dict[str, Any]:
    arguments = json.dumps(call.function.arguments, ensure_ascii=False)
    return {
        "id": call.id or f"call_{index}",
        "type": "function",
        "function": {"name": call.function.name, "arguments": arguments},
    }
