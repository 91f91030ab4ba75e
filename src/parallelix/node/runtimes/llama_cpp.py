"""llama.cpp without anything else to install: any GGUF file, in a worker process a model (`llama_worker`).

How llama.cpp's server really behaves, and what follows here (build 11549):
- It holds text back for stop sequences without saying what the held tokens were, and forgets it where the token bound
  comes first: stop sequences are looked for here instead, and the connection is closed at the first.
- Closing the connection frees the slot at the next token, or within a second while it reads a prompt.
- Tokens that end inside a character are not reported: one entry then stands for several.
- A prompt found in its cache is computed in other pieces, which moves the last digits: with a seed it is read anew.
- A grammar decides what is picked and never the log-probabilities that come with it.
- Two texts embedded in one batch spoil each other's numbers where pooling takes the mean: embedding has one slot.
"""

from __future__ import annotations

import asyncio
import hashlib
import importlib.metadata
import json
import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any, TypeVar

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
from parallelix.node.runtimes.entries import Pairing, Scored, StopSequences, at_most_zero
from parallelix.node.runtimes.gguf import GGUF, read_gguf
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

CONTEXT_TOKENS_MAX_DEFAULT = 8192
"""A model of 3 billion weights takes near 1 GB for a context of this length, for each slot."""
MODELS_LOADED_MAX_DEFAULT = 2

# 40 GB from a disk that reads 100 MB a second take seven minutes.
_LOAD_SECONDS_MAX = 600
_STOP_SECONDS_MAX = 5
# Its threads for questions are not those that compute: on the busiest machine they answer within a second.
_HANGS_SECONDS = 30.0
_ANSWER_BYTES_MAX = 16 * 1024 * 1024
_EMBEDDINGS_BYTES_MAX = 256 * 1024 * 1024
_ERRORS_BYTES_MAX = 16 * 1024
_TOLD_CHARACTERS_MAX = 300
_ERROR_PREFIX = re.compile(r"^[\d.]+ E ")
_WAY_OUT = "the next request starts it again"
_MISSING = "llama.cpp is not installed here: run: pip install 'parallelix[embedded]'"

# Every vocabulary can write one, and a digit never ends inside a character.
_A_DIGIT = "root ::= [0-9]"

AnswerT = TypeVar("AnswerT")
Count = Annotated[int, Meta(ge=0)]


class _Alternative(msgspec.Struct):
    token: str
    logprob: float


class _Logprob(msgspec.Struct):
    token: str
    logprob: float
    top_logprobs: list[_Alternative] = []


class _Error(msgspec.Struct):
    message: str = ""


class _Failure(msgspec.Struct):
    error: _Error


class _Piece(msgspec.Struct):
    """One event of /completion."""

    content: str = ""
    tokens_predicted: Count = 0
    tokens_evaluated: Count = 0
    completion_probabilities: list[_Logprob] = []
    stop: bool = False
    stop_type: str = ""
    error: _Error | None = None


class _FunctionDelta(msgspec.Struct):
    name: str | None = None
    arguments: str | None = None


class _ToolCallDelta(msgspec.Struct):
    index: Count
    id: str | None = None
    function: _FunctionDelta = msgspec.field(default_factory=_FunctionDelta)


class _Delta(msgspec.Struct):
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[_ToolCallDelta] = []


class _Logprobs(msgspec.Struct):
    content: list[_Logprob] = []


class _Choice(msgspec.Struct):
    delta: _Delta = msgspec.field(default_factory=_Delta)
    logprobs: _Logprobs | None = None
    finish_reason: str | None = None


class _Usage(msgspec.Struct):
    prompt_tokens: Count
    completion_tokens: Count


class _ChatPiece(msgspec.Struct):
    """One event of /v1/chat/completions."""

    choices: list[_Choice] = []
    usage: _Usage | None = None
    error: _Error | None = None


class _Rendered(msgspec.Struct):
    prompt: str


class _Embedding(msgspec.Struct):
    index: Count
    embedding: list[float]


class _Embeddings(msgspec.Struct):
    data: list[_Embedding]
    usage: _EmbeddingUsage


class _EmbeddingUsage(msgspec.Struct):
    prompt_tokens: Count


@dataclass(frozen=True, slots=True, kw_only=True)
class _File:
    """A model file as it was when its digest was taken."""

    path: Path
    stamp: tuple[int, int]
    model: Model
    thinks: bool
    """Whether its template makes it think, and cannot be told not to."""


@dataclass(slots=True)
class _Seat:
    """A worker that is loading or loaded, and how many generations use it."""

    loading: asyncio.Task[_Worker]
    users: int = 0
    used_at: float = 0.0

    @property
    def dead(self) -> bool:
        done = self.loading.done()
        return done and (
            self.loading.cancelled() or self.loading.exception() is not None or self.loading.result().ended
        )


class LlamaCpp:
    """Serves the given GGUF files, each by its name without `.gguf`, or by its digest."""

    name = "llama_cpp"

    def __init__(
        self,
        model_files: Sequence[Path],
        slots: int,
        *,
        threads: int | None = None,
        context_tokens_max: int = CONTEXT_TOKENS_MAX_DEFAULT,
        models_loaded_max: int = MODELS_LOADED_MAX_DEFAULT,
    ) -> None:
        """`threads` are per model; None leaves one core to the node, and takes no more than four."""
        self._paths = [path.resolve() for path in model_files]
        self._slots = slots
        self._threads = threads or max(1, min(4, (os.cpu_count() or 2) - 1))
        self._context_tokens_max = context_tokens_max
        self._models_loaded_max = models_loaded_max
        self._files: dict[Path, _File] = {}
        self._hashing = asyncio.Lock()
        self._seats: dict[str, _Seat] = {}
        """By the digest of the weights, since a file may become another."""
        self._seats_changed = asyncio.Condition()

    async def version(self) -> str:
        """Ends workers that hang: the next request starts them again."""
        await asyncio.gather(*(self._end_if_it_hangs(digest) for digest in list(self._seats)))
        return _version()

    async def _end_if_it_hangs(self, digest: str) -> None:
        seat = self._seats[digest]
        if seat.dead or not seat.loading.done() or await seat.loading.result().answers():
            return
        async with self._seats_changed:
            if self._seats.get(digest) is seat:
                await _ended(self._seats.pop(digest))
                self._seats_changed.notify_all()

    async def models(self) -> list[Model]:
        """Reads each file once, and again when its size or time of change is another: 2 s for 4 GB."""
        return [file.model for file in await self._look()]

    async def _look(self) -> list[_File]:
        async with self._hashing:
            for path in self._paths:
                known = self._files.get(path)
                if known is None or known.stamp != _stamp(path):
                    self._files[path] = await asyncio.to_thread(_read_file, path, self._context_tokens_max)
        return [self._files[path] for path in self._paths]

    async def generate(self, work: Generation) -> AsyncGenerator[Item]:
        require_sound(work)
        file = await self._find(work.model)
        _require_features(work, file.model)
        async with self._leased(file) as worker:
            items = self._parsed_chat(work, worker) if _is_parsed(work, file) else self._completion(work, worker)
            if schema_of(work.response_format) is not None:
                items = held_to_json(items)
            async with aclosing(items):
                async for item in items:
                    yield item

    async def _completion(self, work: Generation, worker: _Worker) -> AsyncGenerator[Item]:
        """Token by token, with a chat rendered by the model's template first."""
        prompt = await self._prompt(work, worker)
        request = _sampling(work.sampling) | {"prompt": prompt, "stream": True, "n_predict": work.sampling.max_tokens}
        request["n_probs"] = max(1, work.sampling.top_logprobs)
        if (schema := schema_of(work.response_format)) is not None:
            request["json_schema"] = schema
        reply = _Reply(stops=StopSequences(work.sampling.stop), top_logprobs=work.sampling.top_logprobs)
        async with aclosing(worker.events("/completion", request)) as events:
            async for event in events:
                for item in reply.add(_decoded(_Piece, event)):
                    yield item
                if reply.finished:
                    return
        raise RuntimeFailed(f"llama.cpp ended its answer before it was done: {_WAY_OUT}")

    async def _prompt(self, work: Generation, worker: _Worker) -> str:
        """The text that the model reads: a chat is rendered by its template."""
        if work.messages is None:
            return work.prompt or ""
        request = _parsed_chat_of(work) if work.tools else _chat_of(work)
        return _decoded(_Rendered, await worker.answer("/apply-template", request)).prompt

    async def _parsed_chat(self, work: Generation, worker: _Worker) -> AsyncGenerator[Item]:
        """A chat whose output llama.cpp must take apart: tool calls, or thoughts that cannot be switched off."""
        request = (
            _sampling(work.sampling)
            | _parsed_chat_of(work)
            | {
                "stream": True,
                "stream_options": {"include_usage": True},
                "max_tokens": work.sampling.max_tokens,
                "stop": list(work.sampling.stop),
                # By its own name: with tools, "logprobs" is refused for a stream.
                "n_probs": max(1, work.sampling.top_logprobs),
            }
        )
        reply = _ChatReply(top_logprobs=work.sampling.top_logprobs)
        async with aclosing(worker.events("/v1/chat/completions", request)) as events:
            async for event in events:
                for item in reply.add(_decoded(_ChatPiece, event)):
                    yield item
                if reply.finished:
                    return
        raise RuntimeFailed(f"llama.cpp ended its answer before it was done: {_WAY_OUT}")

    async def probe(self, work: Generation, text: str, positions: Sequence[int]) -> AsyncGenerator[Probed]:
        require_sound(work)
        prefixes = beginnings(text, positions)
        file = await self._find(work.model)
        _require_features(work, file.model, probing=True)
        async with self._leased(file) as worker:
            prompt = await self._prompt(work, worker)
            counted = 0
            for prefix in prefixes:
                try:
                    probed = await self._predict(prompt + prefix, worker)
                except RuntimeUnsupported:
                    if not counted:
                        raise
                    # The prompt fits into the context, and this much of the answer does not.
                    probed = Probed(prompt_tokens=counted, entry=TokenEntry(text=""))
                counted = probed.prompt_tokens
                yield probed

    async def _predict(self, prompt: str, worker: _Worker) -> Probed:
        request = {"prompt": prompt, "n_predict": 1, "n_probs": TOP_LOGPROBS_MAX, "temperature": 0.0}
        piece = _decoded(_Piece, await worker.answer("/completion", request))
        if not piece.completion_probabilities:
            # Half a character was picked, which is not reported.
            piece = _decoded(_Piece, await worker.answer("/completion", request | {"grammar": _A_DIGIT}))
        scored = [_scored(each, TOP_LOGPROBS_MAX) for each in piece.completion_probabilities]
        entry = most_likely(scored[0]) if scored else TokenEntry(text="")
        return Probed(prompt_tokens=piece.tokens_evaluated, entry=entry)

    async def embed(self, model: str, texts: Sequence[str]) -> tuple[list[list[float]], int]:
        file = await self._find(model)
        if not file.model.embeds:
            raise RuntimeUnsupported(f"{model} makes no embeddings: choose a model made for them")
        if not texts:
            return [], 0
        async with self._leased(file) as worker:
            answer = await worker.answer("/v1/embeddings", {"input": list(texts)}, bytes_max=_EMBEDDINGS_BYTES_MAX)
        embeddings = _decoded(_Embeddings, answer)
        vectors = [item.embedding for item in sorted(embeddings.data, key=lambda item: item.index)]
        if len(vectors) != len(texts):
            raise RuntimeFailed(f"llama.cpp returned {len(vectors)} embeddings for {len(texts)} texts: {_WAY_OUT}")
        return vectors, embeddings.usage.prompt_tokens

    async def slots_busy(self, model: str) -> int:
        """How many of the model's slots generate now; 0 where it is not loaded."""
        file = await self._find(model)
        seat = self._seats.get(file.model.digest)
        if seat is None or seat.dead or not seat.loading.done():
            return 0
        slots: list[dict[str, Any]] = msgspec.json.decode(await seat.loading.result().answer("/slots"))
        return sum(bool(slot["is_processing"]) for slot in slots)

    async def aclose(self) -> None:
        """Ends every worker, and with it what still generates."""
        seats, self._seats = list(self._seats.values()), {}
        for seat in seats:
            await _ended(seat)

    async def _find(self, wanted: str) -> _File:
        for file in await self._look():
            if wanted in (file.model.name, file.model.digest):
                return file
        raise ModelMissing(f"no model file is called {wanted!r} or has that digest: add it to the node's model files")

    @asynccontextmanager
    async def _leased(self, file: _File) -> AsyncGenerator[_Worker]:
        """The file's worker, loaded if need be, and kept for as long as the block runs."""
        _version()
        seat = await self._seat(file)
        try:
            yield await asyncio.shield(seat.loading)
        finally:
            seat.users -= 1
            seat.used_at = time.monotonic()
            async with self._seats_changed:
                self._seats_changed.notify_all()

    async def _seat(self, file: _File) -> _Seat:
        digest = file.model.digest
        async with self._seats_changed:
            await self._end_replaced()
            while (seat := self._seats.get(digest)) is None or seat.dead:
                if seat is not None:
                    await _ended(self._seats.pop(digest))
                if len(self._seats) < self._models_loaded_max:
                    self._seats[digest] = _Seat(loading=asyncio.create_task(self._load(file)))
                elif idle := [other for other, its in self._seats.items() if its.users == 0]:
                    oldest = min(idle, key=lambda other: self._seats[other].used_at)
                    await _ended(self._seats.pop(oldest))
                else:
                    await self._seats_changed.wait()
            seat.users += 1
            return seat

    async def _end_replaced(self) -> None:
        """End idle workers whose file has become another since."""
        present = {file.model.digest for file in self._files.values()}
        for digest in [digest for digest, seat in self._seats.items() if digest not in present and seat.users == 0]:
            await _ended(self._seats.pop(digest))

    async def _load(self, file: _File) -> _Worker:
        worker = await _Worker.start(file, slots=self._slots, threads=self._threads)
        if _stamp(file.path) != file.stamp:
            await worker.aclose()
            raise RuntimeFailed(f"{file.path} was changed while it was loaded: ask again")
        return worker


def _version() -> str:
    try:
        return importlib.metadata.version("xllamacpp")
    except importlib.metadata.PackageNotFoundError as error:
        raise RuntimeFailed(_MISSING) from error


async def _ended(seat: _Seat) -> None:
    seat.loading.cancel()
    with suppress(RuntimeFailed, asyncio.CancelledError):
        await (await seat.loading).aclose()


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError as error:
        raise RuntimeFailed(f"the model file {path} cannot be read ({error.strerror}): check the path") from error
    return status.st_size, status.st_mtime_ns


def _read_file(path: Path, context_tokens_max: int) -> _File:
    stamp = _stamp(path)
    facts = read_gguf(path)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return _File(
        path=path,
        stamp=stamp,
        model=Model(
            name=path.stem,
            digest=digest,
            context_tokens=min(facts.context_tokens, context_tokens_max),
            size_bytes=stamp[0],
            embeds=facts.pools,
            features=_features(facts),
        ),
        thinks=_thinks_unasked(facts.chat_template),
    )


def _thinks_unasked(template: str) -> bool:
    return ("<think>" in template or "reasoning_content" in template) and "enable_thinking" not in template


def _features(facts: GGUF) -> tuple[str, ...]:
    if facts.pools:
        return ("embeddings",)
    features = ["chat"] if facts.chat_template else []
    features.append("logprobs")
    # Thoughts are no part of an answer, and without them nobody comes to what the model saw.
    if not _thinks_unasked(facts.chat_template):
        features.append("probe")
    if "tools" in facts.chat_template:
        features.append("tools")
    return (*features, "grammar")


def _require_features(work: Generation, model: Model, *, probing: bool = False) -> None:
    asked = {
        "logprobs": True,
        "probe": probing,
        "chat": work.messages is not None,
        "tools": bool(work.tools),
        "grammar": schema_of(work.response_format) is not None,
    }
    for feature, wanted in asked.items():
        if wanted and feature not in model.features:
            raise RuntimeUnsupported(f"{model.name} has no {feature}: choose another model or leave it out")


def _sampling(sampling: Sampling) -> dict[str, Any]:
    request: dict[str, Any] = {
        "temperature": TEMPERATURE_DEFAULT if sampling.temperature is None else sampling.temperature,
        "top_p": TOP_P_DEFAULT if sampling.top_p is None else sampling.top_p,
        "top_k": TOP_K_DEFAULT if sampling.top_k is None else sampling.top_k,
        "min_p": MIN_P_DEFAULT if sampling.min_p is None else sampling.min_p,
        "presence_penalty": sampling.presence_penalty or 0.0,
        "frequency_penalty": sampling.frequency_penalty or 0.0,
        "cache_prompt": sampling.seed is None,
    }
    if sampling.seed is not None:
        request["seed"] = seed_of(sampling.seed)
    return request


def _is_parsed(work: Generation, file: _File) -> bool:
    return work.messages is not None and (bool(work.tools) or file.thinks)


def _chat_of(work: Generation) -> dict[str, Any]:
    """What a chat's template is rendered from: the same to generate and to probe, or the two see other prompts."""
    assert work.messages is not None
    return {"messages": _plain(work.messages), "chat_template_kwargs": {"enable_thinking": False}}


def _parsed_chat_of(work: Generation) -> dict[str, Any]:
    request = _chat_of(work) | {"tools": list(work.tools or ())}
    if (schema := schema_of(work.response_format)) is not None:
        request["response_format"] = {"type": "json_schema", "json_schema": {"schema": schema}}
    return request


def _plain(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    return [{**message, "content": text_of(message.get("content"))} for message in messages]


def _decoded(kind: type[AnswerT], content: bytes) -> AnswerT:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise RuntimeFailed(f"llama.cpp sent what is not its API ({error}): install the version we name") from error


def _scored(logprob: _Logprob, top_logprobs: int) -> Scored:
    return Scored(
        token=logprob.token,
        logprob=at_most_zero(logprob.logprob),
        top=tuple((other.token, at_most_zero(other.logprob)) for other in logprob.top_logprobs[:top_logprobs]),
    )


@dataclass(slots=True)
class _Reply:
    """Turns /completion's events, one a token, into entries and at the end `Finished`."""

    stops: StopSequences
    top_logprobs: int
    finished: bool = False
    _silent: list[TokenEntry] = field(default_factory=list[TokenEntry])

    def add(self, piece: _Piece) -> list[Item]:
        if piece.error is not None:
            raise RuntimeFailed(f"llama.cpp broke off: {wire.told(piece.error.message)}")
        if piece.stop:
            # Tokens without text at the very end are the end of the sequence itself.
            self._silent.clear()
            return [*self.stops.flush(), self._finish(piece, "length" if piece.stop_type == "limit" else "stop")]
        items: list[Item] = []
        for logprob in piece.completion_probabilities:
            scored = _scored(logprob, self.top_logprobs)
            self._silent.append(TokenEntry(text=piece.content, logprob=scored.logprob, top=scored.top))
        if not piece.completion_probabilities:
            self._silent.append(TokenEntry(text=piece.content))
        if piece.content:
            items += self._shown()
        if self.stops.found:
            items.append(self._finish(piece, "stop"))
        return items

    def _shown(self) -> list[TokenEntry]:
        shown: list[TokenEntry] = []
        for entry in self._silent:
            if not self.stops.found:
                shown += self.stops.add(entry)
        self._silent.clear()
        return shown

    def _finish(self, piece: _Piece, finish: Finish) -> Finished:
        self.finished = True
        return Finished(finish=finish, prompt_tokens=piece.tokens_evaluated, completion_tokens=piece.tokens_predicted)


@dataclass(slots=True)
class _ChatReply:
    """Turns /v1/chat/completions' events into entries and at the end `Finished`."""

    top_logprobs: int
    finished: bool = False
    _finish: str | None = None
    _pairing: Pairing = field(default_factory=Pairing)
    _calls: dict[int, dict[str, Any]] = field(default_factory=dict[int, dict[str, Any]])

    def add(self, piece: _ChatPiece) -> list[Item]:
        if piece.error is not None:
            raise RuntimeFailed(f"llama.cpp broke off: {wire.told(piece.error.message)}")
        items: list[Item] = []
        for choice in piece.choices:
            items += self._entries(choice)
            self._finish = choice.finish_reason or self._finish
        if piece.usage is not None:
            items.append(self._finished(piece.usage))
        return items

    def _entries(self, choice: _Choice) -> list[TokenEntry]:
        delta = choice.delta
        if delta.reasoning_content and not delta.content:
            self._pairing.forget()
            return []
        logprobs = choice.logprobs.content if choice.logprobs is not None else []
        entries = self._pairing.add(delta.content or "", [_scored(each, self.top_logprobs) for each in logprobs])
        for call in delta.tool_calls:
            self._called(call)
            entries += self._pairing.without_text()
        return entries

    def _called(self, call: _ToolCallDelta) -> None:
        known = self._calls.setdefault(
            call.index,
            {"id": f"call_{call.index}", "type": "function", "function": {"name": "", "arguments": ""}},
        )
        known["id"] = call.id or known["id"]
        known["function"]["name"] += call.function.name or ""
        known["function"]["arguments"] += call.function.arguments or ""

    def _finished(self, usage: _Usage) -> Finished:
        self.finished = True
        finish: Finish = "length" if self._finish == "length" else "stop"
        return Finished(
            finish="tool_calls" if self._calls else finish,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            tool_calls=tuple(self._calls[index] for index in sorted(self._calls)),
        )


class _Worker:
    """A running `llama_worker` and the way to talk to it."""

    def __init__(self, process: asyncio.subprocess.Process, http: httpx.AsyncClient, folder: Path) -> None:
        self._process = process
        self._http = http
        self._folder = folder
        self._errors = bytearray()
        self._loaded = False
        self._reading = asyncio.create_task(self._read_errors())

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @classmethod
    async def start(cls, file: _File, *, slots: int, threads: int) -> _Worker:
        """Start a process and load the model. Raises RuntimeFailed with llama.cpp's own words."""
        folder = Path(tempfile.mkdtemp(prefix="parallelix-"))
        settings = {
            "model": str(file.path),
            "socket": str(folder / "llama.sock"),
            "api_key": secrets.token_hex(32),
            "slots": 1 if file.model.embeds else slots,
            "context_tokens": file.model.context_tokens,
            "threads": threads,
            "embedding": file.model.embeds,
        }
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "parallelix.node.runtimes.llama_worker",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        worker = cls(process, _client(settings), folder)
        try:
            await worker._await_ready(file.path, settings)
        except BaseException:
            await worker.aclose()
            raise
        return worker

    async def _await_ready(self, path: Path, settings: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(settings).encode() + b"\n")
        try:
            async with asyncio.timeout(_LOAD_SECONDS_MAX):
                line = await self._process.stdout.readline()
        except TimeoutError as error:
            raise RuntimeFailed(f"llama.cpp did not load {path} in {_LOAD_SECONDS_MAX} s: use a faster disk") from error
        answer: dict[str, Any] = json.loads(line) if line else {}
        if "ready" in answer:
            self._loaded = True
            self._errors.clear()
            return
        with suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._reading), _STOP_SECONDS_MAX)
        if "ModuleNotFoundError" in (reason := answer.get("error", "it ended without a word")):
            raise RuntimeFailed(_MISSING)
        # The first error is the cause, the others its consequences.
        first = self._errors.decode(errors="replace").partition("\n")[0]
        told = _ERROR_PREFIX.sub("", first) or reason
        raise RuntimeFailed(
            f"llama.cpp cannot load {path} ({told[:_TOLD_CHARACTERS_MAX]}): check the file, and that memory suffices"
        )

    async def _read_errors(self) -> None:
        assert self._process.stderr is not None
        # What comes after loading may quote a prompt: it is read so that the pipe never fills, and dropped.
        while chunk := await self._process.stderr.read(64 * 1024):
            if not self._loaded and len(self._errors) < _ERRORS_BYTES_MAX:
                self._errors += chunk

    async def answer(
        self, path: str, request: Mapping[str, Any] | None = None, *, bytes_max: int = _ANSWER_BYTES_MAX
    ) -> bytes:
        method = "GET" if request is None else "POST"
        with wire.foreign_errors("llama.cpp", way_out=_WAY_OUT):
            async with self._http.stream(method, path, json=request) as response:
                content = await wire.body(response, bytes_max=bytes_max)
        if not response.is_success:
            raise _refusal(response.status_code, content)
        return content

    async def answers(self) -> bool:
        """Whether it answers a simple question at all."""
        try:
            async with asyncio.timeout(_HANGS_SECONDS):
                await self.answer("/health")
        except (TimeoutError, RuntimeFailed):
            return False
        return True

    async def events(self, path: str, request: Mapping[str, Any]) -> AsyncGenerator[bytes]:
        """The data of each server-sent event. The connection buffers what is not read; the rest waits in llama.cpp,
        which holds one event a token, so that the token bound is its bound."""
        with wire.foreign_errors("llama.cpp", way_out=_WAY_OUT):
            async with self._http.stream("POST", path, json=request) as response:
                if not response.is_success:
                    raise _refusal(response.status_code, await wire.body(response, bytes_max=_ANSWER_BYTES_MAX))
                async with aclosing(wire.lines(response)) as lines:
                    async for line in lines:
                        name, _, data = line.partition(b": ")
                        if name == b"data" and data != b"[DONE]":
                            yield data
                        elif name == b"error":
                            raise RuntimeFailed(f"llama.cpp broke off: {wire.told(data.decode(errors='replace'))}")

    async def aclose(self) -> None:
        assert self._process.stdin is not None
        await self._http.aclose()
        self._process.stdin.close()
        try:
            await asyncio.wait_for(self._process.wait(), _STOP_SECONDS_MAX)
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()
        await self._reading
        shutil.rmtree(self._folder, ignore_errors=True)


def _client(settings: Mapping[str, Any]) -> httpx.AsyncClient:
    # A connection each: llama.cpp closes idle ones on its own clock, and opening one on a Unix socket costs nothing.
    transport = httpx.AsyncHTTPTransport(uds=settings["socket"], limits=httpx.Limits(max_keepalive_connections=0))
    return httpx.AsyncClient(
        transport=transport,
        base_url="http://llama",
        headers={"Authorization": f"Bearer {settings['api_key']}"},
        timeout=wire.GENERATION_TIMEOUT,
    )


def _refusal(status: int, content: bytes) -> RuntimeFailed:
    try:
        message = wire.told(msgspec.json.decode(content, type=_Failure).error.message)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        message = "its answer is not its API"
    if status in (HTTPStatus.BAD_REQUEST, HTTPStatus.NOT_IMPLEMENTED):
        return RuntimeUnsupported(f"llama.cpp refuses the request: {message}")
    return RuntimeFailed(f"llama.cpp failed with status {status}: {message}; {_WAY_OUT}")
