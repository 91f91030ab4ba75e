"""The OpenAI shapes: `/v1/chat/completions`, `/v1/completions`, `/v1/embeddings`.

Each is created attached: its work is for the connection that waits, and ends with it. Whoever comes back in time with
the same Idempotency-Key is attached to the same request again.
"""

from __future__ import annotations

from contextlib import aclosing

import msgspec

from parallelix.coordinator.errors import ApiError, RequestCancelled, RequestExpired, RequestFailed, Unavailable
from parallelix.coordinator.feed import Delta, Ended, Outcome, Restarted
from parallelix.coordinator.http import openai_bodies, sse
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.http.limits import Disconnected
from parallelix.coordinator.http.openai_answers import (
    ChatRendering,
    CompletionRendering,
    Finished,
    ParallelixAnswer,
    Rendering,
    embedding_list,
    error_of,
)
from parallelix.coordinator.http.requester import admit, receipt_path, request_headers
from parallelix.coordinator.service import Coordinator, Created
from parallelix.coordinator.spec import RequestSpec
from parallelix.engine.entities import ApiKey

NO_RETRY = {"x-should-retry": "false"}
"""OpenAI's clients send a failed call again by themselves; the network has by then made all its attempts."""


class OpenAI:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def chat(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "inference")
        raw, (body, spec) = await call.read(openai_bodies.read_chat)
        created = await self._create(call, key, raw, spec)
        rendering = ChatRendering(
            created.request_id,
            created=await self._created_at_seconds(key, created.request_id),
            model=body.model,
            logprobs=body.logprobs,
            top_logprobs=body.top_logprobs,
            include_usage=body.stream_options is not None and body.stream_options.include_usage,
        )
        await self._deliver(call, key, created, rendering, stream=body.stream)

    async def completion(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "inference")
        raw, (body, spec) = await call.read(openai_bodies.read_completion)
        created = await self._create(call, key, raw, spec)
        rendering = CompletionRendering(
            created.request_id,
            created=await self._created_at_seconds(key, created.request_id),
            model=body.model,
            logprobs=body.logprobs is not None,
            top_logprobs=body.logprobs or 0,
            include_usage=body.stream_options is not None and body.stream_options.include_usage,
        )
        await self._deliver(call, key, created, rendering, stream=body.stream)

    async def embedding(self, call: Call) -> None:
        key = self._coordinator.authenticate(call.bearer(), "inference")
        raw, (body, spec) = await call.read(openai_bodies.read_embedding)
        created = await self._create(call, key, raw, spec)
        finished = await self._finished(call, key, created)
        if finished is not None:
            answer = embedding_list(finished, model=body.model, in_base64=body.encoding_format == "base64")
            await call.answer_struct(200, answer, headers=request_headers(created.request_id))

    async def _create(self, call: Call, key: ApiKey, raw: bytes, spec: RequestSpec) -> Created:
        return await admit(self._coordinator, call, key, raw, spec, attached=True)

    async def _created_at_seconds(self, key: ApiKey, request_id: str) -> int:
        """The same for every answer to the same request, so that a repeat reads the same."""
        request = self._coordinator.engine.requests.get(request_id)
        if request is not None:
            return request.admitted_at // 1000
        view = await self._coordinator.view(key, request_id, with_result=False)
        return view.created_at // 1000

    async def _deliver(self, call: Call, key: ApiKey, created: Created, rendering: Rendering, *, stream: bool) -> None:
        if stream:
            await self._stream(call, key, created.request_id, rendering)
            return
        finished = await self._finished(call, key, created)
        if finished is not None:
            await call.answer_struct(200, rendering.whole(finished), headers=request_headers(created.request_id))

    async def _finished(self, call: Call, key: ApiKey, created: Created) -> Finished | None:
        """The outcome of a success; None when nobody waits for it any more."""
        try:
            async with call.watched(keep_alive=False):
                outcome = await self._coordinator.outcome(key, created.request_id)
        except Disconnected:
            await self._coordinator.client_left(created.request_id)
            return None
        return self._require_completed(outcome)

    async def _stream(self, call: Call, key: ApiKey, request_id: str, rendering: Rendering) -> None:
        await call.start_events(headers=request_headers(request_id))
        try:
            async with call.watched(keep_alive=True):
                await call.write(b"".join(map(sse.data, rendering.opening())))
                outcome = await self._follow(call, key, request_id, rendering)
        except Disconnected:
            await self._coordinator.client_left(request_id)
            return
        except Unavailable as error:
            # These clients would take a stream that just ends for a whole answer.
            await call.end(sse.data(error_of(error.status, error.code, error.message, error.param)))
            return
        if outcome is None:
            await self._coordinator.abandon(request_id, "attempt_restarted")
        await call.end(self._closing(outcome, rendering))

    async def _follow(self, call: Call, key: ApiKey, request_id: str, rendering: Rendering) -> Outcome | None:
        """Shows text until the end; None when text was shown that no longer counts."""
        async with aclosing(self._coordinator.follow(key, request_id, after=None)) as items:
            async for item in items:
                match item:
                    case Delta() if item.text:
                        await call.write(sse.data(rendering.delta(item.text, item.entries)))
                    case Restarted():
                        return None
                    case Ended():
                        return item.outcome
                    case _:
                        pass
        raise AssertionError("a followed request ends with its outcome")

    def _closing(self, outcome: Outcome | None, rendering: Rendering) -> bytes:
        try:
            if outcome is None:
                raise Unavailable(
                    "the node that wrote this text was lost and another began anew; nothing is charged, send it again",
                    code="attempt_restarted",
                )
            finished = self._require_completed(outcome)
        except ApiError as error:
            return sse.data(error_of(error.status, error.code, error.message, error.param))
        return b"".join(map(sse.data, rendering.closing(finished))) + sse.DONE

    def _require_completed(self, outcome: Outcome) -> Finished:
        """Raises `RequestFailed`, `RequestExpired` or `RequestCancelled`."""
        request_id, reason = outcome.request_id, outcome.reason
        if outcome.state == "failed":
            raise RequestFailed(f"{request_id} failed: {reason}; nothing was charged", headers=NO_RETRY)
        if outcome.state == "expired":
            raise RequestExpired(
                f"{request_id} expired: {reason}; nothing was charged; allow more time or another tier",
                headers=NO_RETRY,
            )
        if outcome.state == "cancelled" or outcome.content is None or outcome.usage is None:
            raise RequestCancelled(f"{request_id} was cancelled: {reason}", headers=NO_RETRY)
        return Finished(
            content=outcome.content,
            entries=outcome.entries,
            usage=outcome.usage,
            parallelix=ParallelixAnswer(
                request_id=request_id,
                record_hash=outcome.record_hash,
                charge_wei=str(outcome.charge_wei),
                receipt=receipt_path(request_id),
                audit=outcome.audit,
            ),
        )


def error_bytes(error: ApiError) -> bytes:
    return msgspec.json.encode(error_of(error.status, error.code, error.message, error.param))
