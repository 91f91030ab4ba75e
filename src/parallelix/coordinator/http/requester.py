"""The requester's own calls: create, look at, follow and cancel requests, and what belongs to the account."""

from __future__ import annotations

import re
from contextlib import aclosing
from typing import Annotated

import msgspec
from msgspec import Meta

from parallelix.coordinator import spec as specs
from parallelix.coordinator.errors import BadRequest, NotFound, Unavailable
from parallelix.coordinator.feed import Delta, Ended, Outcome, Position, Progress, Restarted, StreamItem
from parallelix.coordinator.http import limits, sse
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.http.limits import Disconnected
from parallelix.coordinator.service import Coordinator, Created
from parallelix.coordinator.spec import RequestSpec
from parallelix.engine.entities import ApiKey
from parallelix.protocol import requests
from parallelix.protocol.accounts import Scope
from parallelix.protocol.requests import DeltaEvent, EndEvent, ProgressEvent, RestartedEvent, ToolCallView

LIST_LIMIT_DEFAULT = 20
LIST_LIMIT_MAX = 100

STATES = ("queued", "dispatched", "running", "validating", "completed", "failed", "expired", "cancelled")

_REQUEST_ID = re.compile(r"req_[0-9a-f]{64}")
_CREATE = msgspec.json.Decoder(requests.CreateRequest)
_LIMIT = re.compile(r"[0-9]{1,3}")
_CURSOR = re.compile(r"[\x21-\x7e]{1,200}")


class ListQuery(msgspec.Struct, frozen=True, kw_only=True):
    state: Annotated[str, Meta(description="only requests in this state")] | None = None
    limit: Annotated[int, Meta(ge=1, le=LIST_LIMIT_MAX)] = LIST_LIMIT_DEFAULT
    cursor: str | None = None


class Requester:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def create(self, call: Call) -> None:
        key = self._key(call, "inference")
        raw, spec = await call.read(_spec_of)
        created = await admit(self._coordinator, call, key, raw, spec, attached=False)
        view = await self._coordinator.view(key, created.request_id)
        location = (b"location", f"/v1/requests/{created.request_id}".encode())
        await call.answer_struct(201, view, headers=[*request_headers(created.request_id), location])

    async def list(self, call: Call) -> None:
        key = self._key(call, "read")
        query = _list_query(call)
        await call.answer_struct(
            200, await self._coordinator.list(key, state=query.state, limit=query.limit, cursor=query.cursor)
        )

    async def view(self, call: Call) -> None:
        key = self._key(call, "read")
        await call.answer_struct(200, await self._coordinator.view(key, _request_id(call)))

    async def cancel(self, call: Call) -> None:
        key = self._key(call, "inference")
        await call.answer_struct(200, await self._coordinator.cancel(key, _request_id(call)))

    async def receipt(self, call: Call) -> None:
        key = self._key(call, "read")
        await call.answer_struct(200, await self._coordinator.receipt(key, _request_id(call)))

    async def quote(self, call: Call) -> None:
        key = self._key(call, "inference")
        _, spec = await call.read(_spec_of)
        await call.answer_struct(200, await self._coordinator.quote(key, spec))

    async def account(self, call: Call) -> None:
        await call.answer_struct(200, await self._coordinator.account(self._key(call, "read")))

    async def models(self, call: Call) -> None:
        self._key(call)
        await call.answer_struct(200, self._coordinator.models())

    async def model(self, call: Call) -> None:
        self._key(call)
        name = call.parameters["model"].removeprefix("/")
        for model in self._coordinator.models().data:
            if model.id == name:
                await call.answer_struct(200, model)
                return
        raise NotFound(f"model {name[:80]!r}: is not offered; see /v1/models", code="unknown_model", param="model")

    async def events(self, call: Call) -> None:
        """Follows a request. Closing this stream gives the work up, unless the query says `detached=true` or the key
        may not cancel."""
        key = self._key(call, "read")
        request_id = _request_id(call)
        detached = _is_true(call.query("detached").get("detached"), "detached") or not key.may("inference")
        after = _last_event(call)
        await self._coordinator.view(key, request_id, with_result=False)
        await call.start_events(headers=request_headers(request_id))
        try:
            async with call.watched(keep_alive=True):
                last = after or Position(attempt_number=0, offset_bytes=0)
                async with aclosing(self._coordinator.follow(key, request_id, after=after)) as items:
                    async for item in items:
                        last = _position_after(item, last)
                        await call.write(_event(item, last))
                verdict = await self._coordinator.verdict(key, request_id)
                if verdict is not None:
                    await call.write(sse.event("audit", verdict))
        except Disconnected:
            if not detached:
                await self._coordinator.client_left(request_id)
            return
        except Unavailable:
            # A stream that ends without an end is one to take up again, at the next coordinator.
            pass
        await call.end()

    def _key(self, call: Call, scope: Scope | None = None) -> ApiKey:
        return self._coordinator.authenticate(call.bearer(), scope)


async def admit(
    coordinator: Coordinator, call: Call, key: ApiKey, raw: bytes, spec: RequestSpec, *, attached: bool
) -> Created:
    """Creates a request, or finds the one that the call's Idempotency-Key made before."""
    idempotency_key = limits.idempotency_key_of(call.headers)
    route = f"POST {call.scope['path']}"
    return await coordinator.create(
        key,
        spec,
        attached=attached,
        idempotency_key=idempotency_key,
        fingerprint=coordinator.fingerprint(raw, route) if idempotency_key else "",
    )


def receipt_path(request_id: str) -> str:
    return f"/v1/requests/{request_id}/receipt"


def request_headers(request_id: str) -> list[tuple[bytes, bytes]]:
    return [(b"x-parallelix-request", request_id.encode())]


def _spec_of(body: bytes) -> RequestSpec:
    return specs.from_create(limits.decode(body, _CREATE))


def _request_id(call: Call) -> str:
    given = call.parameters["id"]
    if not _REQUEST_ID.fullmatch(given):
        raise NotFound(f"request {given[:80]!r}: is not an id of a request (req_ and 64 hex digits)",
                       code="unknown_request")  # fmt: skip
    return given


def _list_query(call: Call) -> ListQuery:
    given = call.query("state", "limit", "cursor")
    state, limit, cursor = given.get("state"), given.get("limit"), given.get("cursor")
    if state is not None and state not in STATES:
        raise BadRequest(f"state: {state[:64]!r} is none of {', '.join(STATES)}", code="invalid_request", param="state")
    if limit is not None and not (_LIMIT.fullmatch(limit) and 1 <= int(limit) <= LIST_LIMIT_MAX):
        raise BadRequest(
            f"limit: {limit[:64]!r} is not from 1 to {LIST_LIMIT_MAX}", code="invalid_request", param="limit"
        )
    if cursor is not None and not _CURSOR.fullmatch(cursor):
        raise BadRequest("cursor: take it from next_cursor of the page before", code="invalid_request", param="cursor")
    return ListQuery(state=state, limit=LIST_LIMIT_DEFAULT if limit is None else int(limit), cursor=cursor)


def _is_true(given: str | None, name: str) -> bool:
    if given not in (None, "true", "false"):
        raise BadRequest(f"{name}: {given[:64]!r} is neither true nor false", code="invalid_request", param=name)
    return given == "true"


def _last_event(call: Call) -> Position | None:
    given = call.headers.get(b"last-event-id")
    if given is None:
        return None
    attempt_number, offset_bytes = sse.parse_position(given.decode("latin-1"))
    return Position(attempt_number=attempt_number, offset_bytes=offset_bytes)


def _position_after(item: StreamItem, last: Position) -> Position:
    match item:
        case Delta():
            end = item.offset_bytes + len(item.text.encode())
            return Position(attempt_number=item.attempt_number, offset_bytes=end)
        case Restarted():
            return Position(attempt_number=item.attempt_number, offset_bytes=0)
        case _:
            return last


def _event(item: StreamItem, last: Position) -> bytes:
    position = (last.attempt_number, last.offset_bytes)
    match item:
        case Delta():
            delta = DeltaEvent(attempt=item.attempt_number, offset=item.offset_bytes, text=item.text)
            return sse.event("delta", delta, position=position)
        case Restarted():
            return sse.event("attempt.restarted", RestartedEvent(attempt=item.attempt_number), position=position)
        case Progress():
            return sse.event(item.kind, ProgressEvent(attempt=item.attempt_number, reason=item.reason))
        case Ended():
            return sse.event(item.outcome.state, _end_event(item.outcome), position=position)


def _end_event(outcome: Outcome) -> EndEvent:
    content = outcome.content
    return EndEvent(
        id=outcome.request_id,
        state=outcome.state,
        reason=outcome.reason,
        finish_reason=content.finish_reason if content is not None else None,
        tool_calls=tuple(
            ToolCallView(id=call.id, name=call.name, arguments=call.arguments)
            for call in (content.tool_calls if content is not None else ())
        ),
        usage=outcome.usage,
        charge_wei=str(outcome.charge_wei),
        record_hash=outcome.record_hash,
        receipt=receipt_path(outcome.request_id) if outcome.record_hash else None,
        audit=outcome.audit,
    )
