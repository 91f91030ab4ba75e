"""What is asked of the past: reads on connections of their own, in a few threads, beside the one writer.

A reader sees only what is durable: neither engine shows a commit before it is synced.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Self, TypeVar

import msgspec

from parallelix.coordinator.errors import BadRequest
from parallelix.coordinator.store import queries
from parallelix.coordinator.store.backend import Backend, Reading
from parallelix.coordinator.store.backends import backend_of
from parallelix.coordinator.store.errors import StoreFailed
from parallelix.coordinator.store.rows import ClaimRow, CommandRow, EnvelopeRow, IntentRow, PayloadRow, ResultRow
from parallelix.coordinator.store.statements import Delete
from parallelix.engine.rows import AttemptRow, AuditRow, BatchRow, EpochRow, RecordRow, RequestRow, Row, TransferRow
from parallelix.engine.settings import DAY_MS, HOUR_MS
from parallelix.protocol.ids import is_unit_id

THREADS = 4
"""Reads are short; more threads would only wait for the interpreter in turn."""
PAGE_MAX = 200
RECORDS_MAX = 4096
"""As many as a batch may hold."""
EPOCHS_MAX = 1000
COMMANDS_MAX = 100
TRANSFERS_PAGE = 1000
PAYLOAD_KEPT_MS = DAY_MS
"""A request is over after 12 h; what is left of it then was forgotten by a crash."""
COMMAND_KEPT_MS = HOUR_MS
INTENT_KEPT_MS = 30 * DAY_MS
"""Of those that are over, for whoever looks what was sent; the chain remembers the rest."""

_NEWEST = 2**63 - 1
_T = TypeVar("_T")


class RequestPage(msgspec.Struct, frozen=True, kw_only=True):
    """Newest first. `next_cursor` is empty on the last page."""

    requests: tuple[RequestRow, ...]
    next_cursor: str


class Readers:
    """Made by `open`, from any thread with an event loop. Every method may raise `StoreFailed`."""

    def __init__(self, backend: Backend, threads: int) -> None:
        self._backend = backend
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="store-reader")
        self._local = threading.local()
        self._open: set[Reading] = set()

    @classmethod
    def open(cls, url: str, *, threads: int = THREADS) -> Self:
        """Connects at the first read. The store must have been opened, hence migrated, before."""
        return cls(backend_of(url), threads)

    async def request(self, request_id: str) -> RequestRow | None:
        return await self._row(RequestRow, queries.REQUEST, request_id=request_id)

    async def requests_of(self, account: str, *, state: str = "", limit: int, cursor: str = "") -> RequestPage:
        """At most `limit` (up to 200) of an account's requests. Raises `BadRequest` for a cursor that is not ours."""
        limit = min(limit, PAGE_MAX)
        before_at, before_id = _position(cursor)
        query = queries.REQUESTS_OF_IN_STATE if state else queries.REQUESTS_OF
        parameters = {"account": account, "before_at": before_at, "before_id": before_id, "limit": limit + 1}
        if state:
            parameters["state"] = state
        found = await self._rows(RequestRow, query, **parameters)
        page = found[:limit]
        return RequestPage(requests=tuple(page), next_cursor=_cursor(page[-1]) if len(found) > limit else "")

    async def attempts_of(self, request_id: str) -> list[AttemptRow]:
        return await self._rows(AttemptRow, queries.ATTEMPTS_OF, request_id=request_id)

    async def payload(self, request_id: str) -> PayloadRow | None:
        return await self._row(PayloadRow, queries.PAYLOAD, request_id=request_id)

    async def envelope(self, attempt_id: str) -> EnvelopeRow | None:
        return await self._row(EnvelopeRow, queries.ENVELOPE, attempt_id=attempt_id)

    async def result(self, request_id: str) -> ResultRow | None:
        return await self._row(ResultRow, queries.RESULT, request_id=request_id)

    async def record_by_hash(self, record_hash: str) -> RecordRow | None:
        return await self._row(RecordRow, queries.RECORD_BY_HASH, record_hash=record_hash)

    async def record_of_request(self, request_id: str) -> RecordRow | None:
        """The record of the request's execution."""
        return await self._row(RecordRow, queries.RECORD_OF_REQUEST, request_id=request_id)

    async def records_range(self, first: int, last: int) -> list[RecordRow]:
        """Both ends included, in order; at most 4096, the size of a batch."""
        return await self._rows(RecordRow, queries.RECORDS_RANGE, first=first, last=last, limit=RECORDS_MAX)

    async def batch(self, number: int) -> BatchRow | None:
        return await self._row(BatchRow, queries.BATCH, number=number)

    async def batch_of(self, sequence: int) -> BatchRow | None:
        """The batch that holds a record, once there is one."""
        return await self._row(BatchRow, queries.BATCH_OF, sequence=sequence)

    async def audit_of_request(self, request_id: str) -> AuditRow | None:
        """What became of the audit of the request's execution; None where it was not drawn."""
        return await self._row(AuditRow, queries.AUDIT_OF_REQUEST, request_id=request_id)

    async def claim(self, audit_id: str) -> ClaimRow | None:
        return await self._row(ClaimRow, queries.CLAIM, audit_id=audit_id)

    async def epochs(self, *, first: int = 0, limit: int = EPOCHS_MAX) -> list[EpochRow]:
        """Those from `first` on in order, at most `limit` (up to 1000)."""
        return await self._rows(EpochRow, queries.EPOCHS_FROM, first=first, limit=min(limit, EPOCHS_MAX))

    async def transfers(self) -> AsyncIterator[TransferRow]:
        """All, in order of their ids."""
        after = ""
        while page := await self._rows(TransferRow, queries.TRANSFERS_AFTER, after=after, limit=TRANSFERS_PAGE):
            for transfer in page:
                yield transfer
            after = page[-1].transfer_id

    async def has_transfer(self, transfer_id: str) -> bool:
        return await self._row(TransferRow, queries.TRANSFER, transfer_id=transfer_id) is not None

    async def intent(self, intent_id: str) -> IntentRow | None:
        return await self._row(IntentRow, queries.INTENT, intent_id=intent_id)

    async def open_intents(self) -> list[IntentRow]:
        """Those on their way, oldest first: few, as each account has one at a time."""
        return await self._rows(IntentRow, queries.OPEN_INTENTS)

    async def pending_commands(self) -> list[CommandRow]:
        """Oldest first, at most 100; the next call gives the rest once these are applied."""
        return await self._rows(CommandRow, queries.PENDING_COMMANDS, limit=COMMANDS_MAX)

    async def expired(self, *, now: int, limit: int) -> list[Delete]:
        """What is past its time, at most `limit` of each kind, to be appended to the journal; empty when none is."""
        return await self._run(lambda reading: _expired(reading, now=now, limit=limit))

    async def close(self) -> None:
        await asyncio.to_thread(self._threads.shutdown)
        for reading in self._open:
            reading.connection.close()
        self._backend.close()

    async def _row(self, row_type: type[_R], sql: str, **parameters: object) -> _R | None:
        return await self._run(lambda reading: reading.row(row_type, sql, **parameters))

    async def _rows(self, row_type: type[_R], sql: str, **parameters: object) -> list[_R]:
        return await self._run(lambda reading: reading.rows(row_type, sql, **parameters))

    async def _run(self, work: Callable[[Reading], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)

    def _work(self, work: Callable[[Reading], _T]) -> _T:
        kept: Reading | None = getattr(self._local, "reading", None)
        if kept is not None:
            try:
                return work(kept)
            except self._backend.driver_error:
                # It may have been cut since it was last used, and a read may be repeated.
                self._drop(kept)
        fresh = self._connect()
        try:
            return work(fresh)
        except self._backend.driver_error as error:
            self._drop(fresh)
            raise self._backend.ours(error, StoreFailed) from error

    def _connect(self) -> Reading:
        reading = Reading(self._backend, self._backend.connect_reader())
        self._local.reading = reading
        self._open.add(reading)
        return reading

    def _drop(self, reading: Reading) -> None:
        self._local.reading = None
        self._open.discard(reading)
        reading.connection.close()


_R = TypeVar("_R", bound=Row)


def _expired(reading: Reading, *, now: int, limit: int) -> list[Delete]:
    payloads_before, commands_before = now - PAYLOAD_KEPT_MS, now - COMMAND_KEPT_MS
    intents_before = now - INTENT_KEPT_MS
    found = [
        (ResultRow, reading.values(queries.EXPIRED_RESULTS, now=now, limit=limit)),
        (EnvelopeRow, reading.values(queries.EXPIRED_ENVELOPES, before=payloads_before, limit=limit)),
        (PayloadRow, reading.values(queries.EXPIRED_PAYLOADS, before=payloads_before, limit=limit)),
        (CommandRow, reading.values(queries.EXPIRED_COMMANDS, before=commands_before, limit=limit)),
        (IntentRow, reading.values(queries.EXPIRED_INTENTS, before=intents_before, limit=limit)),
    ]
    return [Delete(row_type=row_type, key=key) for row_type, keys in found for key in keys]


def _cursor(last: RequestRow) -> str:
    return f"{last.admitted_at}-{last.request_id}"


def _position(cursor: str) -> tuple[int, str]:
    """The (admitted_at, request_id) after which the page begins."""
    if not cursor:
        return _NEWEST, ""
    at, _, request_id = cursor.partition("-")
    if not (at.isdecimal() and len(at) <= 18 and is_unit_id(request_id)):
        raise BadRequest(
            f"cursor {cursor[:100]!r} is not one that a list gave: use its next_cursor, or none to begin again",
            code="invalid_request",
            param="cursor",
        )
    return int(at), request_id
