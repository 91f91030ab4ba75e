"""One attempt, from its envelope to its answered result.

    open        envelope, payload (off the event loop: an RSA private operation)
    acknowledge unless a delta or the result does it first; our deadline runs from here, never later than theirs
    run         the runtime; entries go out by the delta stream as they come. An audit has none: its runtime
                predicts one token at each place that it names, and all of that is the result
    seal        result, proof, signatures, once (off the event loop)
    return      the same bytes until they are answered, as long as anybody can still want them

A slot is taken from the start until the runtime is done; sealing and returning hold none.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from functools import partial
from typing import Literal, TypeAlias, TypeVar

import msgspec

from parallelix.node import sealing
from parallelix.node.events import Value, short
from parallelix.node.keys import NodeKeys
from parallelix.node.link import AttemptClosed, Link, LinkError, Refused
from parallelix.node.output import DeltaStream, Output, OutputFull
from parallelix.node.private_text import private_texts_of, without_private_text
from parallelix.node.runtimes import base
from parallelix.node.session import Session
from parallelix.protocol import messages, work
from parallelix.protocol.errors import Malformed, ProtocolError

QUIET_SECONDS = 0.1
"""A first delta or a result acknowledges as well as a call of its own, and most short answers are there by then."""
UNSURE_SECONDS = 3.0
"""A delta that was sent may not have arrived. Well inside the ten seconds that a coordinator waits."""
ORDER_SECONDS = 1.0
"""How long a finished result waits for its stream to be answered, so that it arrives after it; it does not need it."""
PARTIAL_WAIT_SECONDS = 5.0
"""A stream may be refused a moment before the cancellation that says why, and asks for what there is, comes in. The
coordinator waits ten seconds for that."""
RETURN_SECONDS = 15 * 60.0
"""After its deadline a result is worth trying for as long as a coordinator takes to come back from a restart."""
REASON_CHARACTERS_MAX = 300
ERROR_CHARACTERS_MAX = 1000
"""Of a runtime's own words; the rest is neither searched nor told."""

T = TypeVar("T")

Outcome: TypeAlias = Literal["completed", "cancelled", "failed", "declined", "dropped"]


class Stop(Enum):
    """Why an attempt ends before its runtime does. The first reason holds, but a wish for the partial output revives an
    attempt that was closed."""

    CLOSED = auto()
    """Nobody waits for it any more."""
    PARTIAL = auto()
    """Cancelled, and what was generated so far is wanted."""
    DEADLINE = auto()
    DRAINING = auto()
    FULL = auto()
    """The result can carry no more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Workplace:
    """What every attempt of a node shares. `models` maps names to digests, as last attached."""

    node_id: int
    chain_id: int
    keys: NodeKeys
    runtime: base.Runtime
    link: Link
    session: Session
    threads: ThreadPoolExecutor
    models: Mapping[str, str]
    seal_result: Callable[..., sealing.Sealed] = sealing.seal_result


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """How an attempt ended, for the log. `reason` explains everything but a result that was accepted."""

    outcome: Outcome
    code: str = ""
    reason: str = ""
    accepted: bool = False
    lost: bool = False
    audit: bool = False
    fields: Mapping[str, Value] = field(default_factory=dict[str, Value])


@dataclass(frozen=True, slots=True, kw_only=True)
class _Verdict:
    """What the runtime's part came to, before anything is sealed."""

    outcome: Outcome
    content: work.ResultContent | None = None
    usage: work.Usage | None = None
    code: messages.FailureCode | None = None
    reason: str = ""


@dataclass(slots=True)
class _Embedded:
    vectors: tuple[str, ...]
    prompt_tokens: int


@dataclass(slots=True)
class _Probed:
    prompt_tokens: tuple[int, ...]


_Given: TypeAlias = base.Finished | _Embedded | _Probed


class Attempt:
    """`on_slot_free` is called once: when the runtime is done with it, was stopped, or was never asked."""

    def __init__(self, sealed: messages.Work, *, place: Workplace, on_slot_free: Callable[[], None]) -> None:
        self.sealed = sealed
        self._place = place
        self._on_slot_free = on_slot_free
        self._loop = asyncio.get_running_loop()
        self._started_at = self._loop.time()
        self._deadline_at = self._started_at + sealed.deadline_seconds
        self._stopped: Stop | None = None
        self._partial_asked = asyncio.Event()
        self._working: asyncio.Task[_Given] | None = None
        self._acknowledging: asyncio.Task[None] | None = None
        self._streaming: asyncio.Task[None] | None = None
        self._stream: DeltaStream | None = None
        self._output = Output()
        self._is_audit = False
        self._holds_slot = True

    @property
    def attempt_id(self) -> str:
        return self.sealed.attempt_id

    def stop(self, why: Stop) -> None:
        """Ends the runtime's part, if it still goes on."""
        if self._stopped is None or (self._stopped is Stop.CLOSED and why is Stop.PARTIAL):
            self._stopped = why
        if why is Stop.PARTIAL:
            self._partial_asked.set()
        if self._working is not None:
            self._working.cancel()
        # The coordinator may already hand out the slot again; a runtime takes a moment to stop.
        self._free_slot()

    async def run(self) -> Ended:
        """Cancelling it drops the attempt."""
        try:
            return await self._run()
        except Exception as error:
            # Our own mistake must not leave the coordinator waiting for the deadline.
            return await self._report(
                _failed("node.runtime_failed", f"an error inside the node: {type(error).__name__}")
            )
        finally:
            self._free_slot()
            for task in (self._working, self._acknowledging, self._streaming):
                if task is not None:
                    task.cancel()

    async def decline(self, code: messages.FailureCode, reason: str) -> Ended:
        """Returns the attempt untouched; it never held a slot."""
        self._holds_slot = False
        return await self._report(_Verdict(outcome="declined", code=code, reason=reason))

    async def _run(self) -> Ended:
        try:
            opened = await self._off_loop(
                partial(sealing.open_work, self.sealed, node_id=self._place.node_id, keys=self._place.keys)
            )
        except ProtocolError as error:
            return await self._report(_failed("node.bad_envelope", error.message))
        self._is_audit = opened.payload.probes is not None
        verdict = self._unserveable()
        if verdict is None:
            self._deadline_at = self._loop.time() + self.sealed.deadline_seconds
            self._acknowledging = asyncio.create_task(self._acknowledge(opened))
            verdict = await self._serve(opened)
        self._free_slot()
        if verdict.outcome == "dropped":
            return Ended(outcome="dropped", reason=verdict.reason)
        if verdict.content is None or verdict.usage is None:
            return await self._report(verdict)
        return await self._return(opened, verdict, verdict.content, verdict.usage)

    def _unserveable(self) -> _Verdict | None:
        digest = self._place.models.get(self.sealed.model)
        if digest == self.sealed.model_digest:
            return None
        what = "is not served here any more" if digest is None else "has other weights here"
        return _declined("node.unsupported", f"the model {self.sealed.model[:100]} {what}")

    async def _acknowledge(self, opened: sealing.Opened) -> None:
        await asyncio.sleep(QUIET_SECONDS)
        if self._stream is not None and self._stream.began:
            await asyncio.sleep(UNSURE_SECONDS)
        if self._output.complete:
            return
        body = sealing.seal_acknowledgement(self.attempt_id, opened)
        try:
            await self._place.session.until_answered(lambda: self._place.link.acknowledge(body))
        except Refused:
            # Closed, or unknown: in both cases nobody will take what comes of it.
            self.stop(Stop.CLOSED)

    async def _serve(self, opened: sealing.Opened) -> _Verdict:
        deadline = self._loop.call_at(self._deadline_at, self.stop, Stop.DEADLINE)
        try:
            finished = await self._work(opened)
        except Exception as error:
            return self._runtime_trouble(error, opened)
        finally:
            deadline.cancel()
            self._output.finish()
            self._free_slot()
        if finished is not None:
            return self._completed(finished)
        return await self._ended_early()

    async def _work(self, opened: sealing.Opened) -> _Given | None:
        """What the runtime gave, or None when it was stopped."""
        if self._stopped is not None:
            return None
        self._working = asyncio.create_task(self._given(opened))
        try:
            return await self._working
        except asyncio.CancelledError:
            if self._stopped is None:
                raise
            return None
        except OutputFull:
            self._stopped = self._stopped or Stop.FULL
            return None

    async def _given(self, opened: sealing.Opened) -> _Given:
        payload = opened.payload
        if payload.probes is not None:
            return await self._probe(payload, payload.probes)
        return await (self._embed(payload) if payload.kind == "embedding" else self._generate(opened))

    async def _probe(self, payload: work.Payload, probes: work.Probes) -> _Probed:
        generation = sealing.generation_of(payload)
        prompt_tokens: list[int] = []
        items = self._place.runtime.probe(generation, probes.text, probes.positions)
        try:
            async for probed in items:
                self._output.add(sealing.entry_of(probed.entry))
                prompt_tokens.append(probed.prompt_tokens)
        finally:
            await _close(items)
        if len(prompt_tokens) != len(probes.positions):
            raise base.RuntimeFailed(f"the runtime predicted {len(prompt_tokens)} of {len(probes.positions)} places")
        return _Probed(prompt_tokens=tuple(prompt_tokens))

    async def _generate(self, opened: sealing.Opened) -> base.Finished:
        generation = sealing.generation_of(opened.payload)
        finished: base.Finished | None = None
        items = self._place.runtime.generate(generation)
        try:
            async for item in items:
                if isinstance(item, base.Finished):
                    finished = item
                else:
                    self._output.add(sealing.entry_of(item))
                    if self._streaming is None:
                        self._streaming = asyncio.create_task(self._send_deltas(opened.secrets.channel_secret))
        finally:
            await _close(items)
        if finished is None:
            raise base.RuntimeFailed("the runtime ended without saying how")
        self._output.finish()
        return finished

    async def _embed(self, payload: work.Payload) -> _Embedded:
        vectors, prompt_tokens = await self._place.runtime.embed(payload.model, payload.inputs)
        return _Embedded(vectors=sealing.pack_vectors(vectors), prompt_tokens=prompt_tokens)

    async def _send_deltas(self, channel_secret: bytes) -> None:
        if self._output.complete:
            # The runtime answered in one go, and the result is a signature away: it carries the text as well.
            return
        self._stream = DeltaStream(
            self._output,
            attempt_id=self.attempt_id,
            channel_secret=channel_secret,
            link=self._place.link,
            session=self._place.session,
        )
        try:
            await self._stream.run()
        except AttemptClosed:
            self.stop(Stop.CLOSED)

    def _completed(self, finished: _Given) -> _Verdict:
        if isinstance(finished, _Probed):
            content = work.ResultContent(finish_reason="stop", probe_prompt_tokens=finished.prompt_tokens)
            usage = work.Usage(prompt_tokens=finished.prompt_tokens[0], completion_tokens=self._output.count)
            return _Verdict(outcome="completed", content=content, usage=usage)
        if isinstance(finished, _Embedded):
            content = work.ResultContent(embeddings=finished.vectors, finish_reason="stop")
            usage = work.Usage(prompt_tokens=finished.prompt_tokens, completion_tokens=0)
            return _Verdict(outcome="completed", content=content, usage=usage)
        try:
            tool_calls = tuple(sealing.tool_call_of(call) for call in finished.tool_calls)
        except (KeyError, TypeError):
            return _failed("node.runtime_failed", "the runtime gave a tool call in no known shape")
        content = work.ResultContent(text=self._output.text, tool_calls=tool_calls, finish_reason=finished.finish)
        usage = work.Usage(prompt_tokens=finished.prompt_tokens, completion_tokens=finished.completion_tokens)
        return _Verdict(outcome="completed", content=content, usage=usage)

    async def _ended_early(self) -> _Verdict:
        if self._stopped is Stop.CLOSED and not self._is_audit:
            with suppress(TimeoutError):
                async with asyncio.timeout(PARTIAL_WAIT_SECONDS):
                    await self._partial_asked.wait()
        match self._stopped:
            case Stop.PARTIAL | Stop.FULL if self._is_audit:
                return _Verdict(outcome="dropped", reason="an audit was ended before it was whole, so nothing is told")
            case Stop.PARTIAL:
                return self._unfinished("cancelled", "cancelled")
            case Stop.FULL:
                return self._unfinished("completed", "length")
            case Stop.DEADLINE:
                done = f"{self._output.count} {'places were predicted' if self._is_audit else 'entries were generated'}"
                return _failed("node.deadline_exceeded", f"not done within {self.sealed.deadline_seconds:g} s; {done}")
            case Stop.DRAINING:
                return _declined("node.draining", "the operator stopped this node before the work was done")
            case _:
                return _Verdict(outcome="dropped", reason="the coordinator closed the attempt")

    def _unfinished(self, outcome: Literal["completed", "cancelled"], finish: work.FinishReason) -> _Verdict:
        """What there is. Runtimes count tokens only at their end, so an entry counts as one, and the prompt as none."""
        content = work.ResultContent(text=self._output.text, finish_reason=finish)
        usage = work.Usage(prompt_tokens=0, completion_tokens=self._output.count)
        return _Verdict(outcome=outcome, content=content, usage=usage)

    def _runtime_trouble(self, error: Exception, opened: sealing.Opened) -> _Verdict:
        if isinstance(error, Malformed):
            return _failed("node.bad_envelope", error.message)
        private = (*private_texts_of(opened.payload), self._output.text)
        reason = without_private_text(str(error)[:ERROR_CHARACTERS_MAX], private)
        match error:
            case base.RuntimeUnsupported() | base.ModelMissing():
                return _declined("node.unsupported", reason)
            case base.RuntimeFailed():
                return _failed("node.runtime_failed", reason)
            case struct.error() | OverflowError():
                return _failed("node.runtime_failed", "the runtime gave a number that is no 32-bit float")
            case _:
                return _failed("node.runtime_failed", f"{type(error).__name__}: {reason}")

    async def _return(
        self, opened: sealing.Opened, verdict: _Verdict, content: work.ResultContent, usage: work.Usage
    ) -> Ended:
        assert verdict.outcome in ("completed", "cancelled"), verdict.outcome
        sealed = await self._off_loop(
            partial(
                self._place.seal_result,
                verdict.outcome,
                content,
                entries=self._output.encoded_entries(),
                usage=usage,
                attempt=self.sealed,
                opened=opened,
                chain_id=self._place.chain_id,
                node_id=self._place.node_id,
                keys=self._place.keys,
            )
        )
        proven_at = self._loop.time()
        await self._let_the_stream_end()
        ended = await self._send(sealed.body, Ended(outcome=verdict.outcome, audit=self._is_audit), proven=True)
        fields: dict[str, Value] = {
            "ms": round((proven_at - self._started_at) * 1000),
            "poe": short(sealed.poe),
            "prompt_tokens": usage.prompt_tokens,
            "completion_tokens": usage.completion_tokens,
            "return_ms": round((self._loop.time() - proven_at) * 1000),
        }
        return replace(ended, fields=fields)

    async def _report(self, verdict: _Verdict) -> Ended:
        """Tells that there is no result. A stream in mid-way is cut: what it carried is void."""
        if self._streaming is not None:
            self._streaming.cancel()
        assert verdict.outcome in ("failed", "declined"), verdict.outcome
        reason = verdict.reason[:REASON_CHARACTERS_MAX]
        body = messages.Result(attempt_id=self.attempt_id, outcome=verdict.outcome, code=verdict.code, message=reason)
        ended = Ended(outcome=verdict.outcome, code=verdict.code or "", reason=reason)
        return await self._send(msgspec.json.encode(body), ended, proven=False)

    async def _send(self, body: bytes, ended: Ended, *, proven: bool) -> Ended:
        link = self._place.link
        try:
            async with asyncio.timeout_at(max(self._deadline_at, self._loop.time()) + RETURN_SECONDS):
                answer = await self._place.session.until_answered(
                    lambda: link.result(body, attempt_id=self.attempt_id, proven=proven)
                )
        except TimeoutError:
            return replace(ended, lost=True, reason=f"no answer for {RETURN_SECONDS:g} s after the deadline")
        except LinkError as error:
            return replace(ended, reason=str(error))
        return replace(ended, accepted=answer.accepted, reason=ended.reason or answer.reason)

    async def _let_the_stream_end(self) -> None:
        if self._streaming is not None and not self._streaming.done():
            await asyncio.wait((self._streaming,), timeout=ORDER_SECONDS)

    async def _off_loop(self, call: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._place.threads, call)

    def _free_slot(self) -> None:
        if self._holds_slot:
            self._holds_slot = False
            self._on_slot_free()


def _failed(code: messages.FailureCode, reason: str) -> _Verdict:
    return _Verdict(outcome="failed", code=code, reason=reason)


def _declined(code: messages.FailureCode, reason: str) -> _Verdict:
    return _Verdict(outcome="declined", code=code, reason=reason)


async def _close(items: AsyncIterator[object]) -> None:
    """Stops the runtime where the loop over its entries was left early."""
    close = getattr(items, "aclose", None)
    if close is not None:
        await close()
