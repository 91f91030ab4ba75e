"""What anyone may read: the chain of records, totals of the network, and whether this coordinator is well.

A record and a batch are answered in canonical form: SHA-256 over a record's answer is its hash.
"""

from __future__ import annotations

import re

import msgspec

from parallelix.coordinator.errors import BadRequest, NotFound
from parallelix.coordinator.http.call import Call
from parallelix.coordinator.service import Coordinator
from parallelix.protocol import canonical
from parallelix.protocol.encoding import is_hash

RECORDS_PAGE = 100
RECORDS_PAGE_MAX = 500
"""Half a MiB, which a client reads in one go."""
EPOCHS_PAGE = EPOCHS_PAGE_MAX = 1000
"""Near three years of days."""
RECORD_NUMBER_MAX = 10**15 - 1
"""At a thousand a second it takes 31,000 years."""
_NUMBER = re.compile(r"[0-9]{1,15}")


class Health(msgspec.Struct, frozen=True, kw_only=True):
    status: str
    reason: str = ""


class Public:
    def __init__(self, coordinator: Coordinator) -> None:
        self._coordinator = coordinator

    async def record(self, call: Call) -> None:
        given = call.parameters["hash"]
        if not is_hash(given):
            raise NotFound(f"record {given[:80]!r}: is not a hash (0x and 64 hex digits)", code="unknown_record")
        await call.answer(200, canonical.encode(await self._coordinator.record(given)))

    async def records(self, call: Call) -> None:
        """A page of the chain in its order, newer records than the last batch's included."""
        given = call.query("first", "limit")
        first = _number(given, "first", otherwise=0, least=0, most=RECORD_NUMBER_MAX)
        limit = _number(given, "limit", otherwise=RECORDS_PAGE, least=1, most=RECORDS_PAGE_MAX)
        await self._coordinator.journal.flushed()
        rows = await self._coordinator.readers.records_range(first, first + limit - 1)
        await call.answer(200, b'{"data":[' + b",".join(row.body for row in rows) + b"]}")

    async def epochs(self, call: Call) -> None:
        """In their order, from `first` on."""
        given = call.query("first", "limit")
        first = _number(given, "first", otherwise=0, least=0, most=RECORD_NUMBER_MAX)
        limit = _number(given, "limit", otherwise=EPOCHS_PAGE, least=1, most=EPOCHS_PAGE_MAX)
        await call.answer_struct(200, await self._coordinator.epochs(first, limit))

    async def batch(self, call: Call) -> None:
        given = call.parameters["number"]
        if not _NUMBER.fullmatch(given):
            raise NotFound(f"batch {given[:80]!r}: is not a number", code="unknown_batch")
        await call.answer(200, canonical.encode(await self._coordinator.batch(int(given))))

    async def network(self, call: Call) -> None:
        await call.answer_struct(200, await self._coordinator.network())

    async def healthz(self, call: Call) -> None:
        """Answers as long as the process does; says nothing of what it depends on."""
        await call.answer_struct(200, Health(status="ok"))

    async def readyz(self, call: Call) -> None:
        is_ready, reason = self._coordinator.ready()
        await call.answer_struct(200 if is_ready else 503, Health(status="ok" if is_ready else "no", reason=reason))

    async def metrics(self, call: Call) -> None:
        await call.answer(200, self._coordinator.metrics.text(), kind=b"text/plain; version=0.0.4; charset=utf-8")


def _number(given: dict[str, str], name: str, *, otherwise: int, least: int, most: int) -> int:
    text = given.get(name, str(otherwise))
    if not (_NUMBER.fullmatch(text) and least <= int(text) <= most):
        raise BadRequest(f"{name}: {text[:64]!r} is not from {least} to {most}", code="invalid_request", param=name)
    return int(text)
