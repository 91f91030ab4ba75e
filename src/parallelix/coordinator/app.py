"""Builds the one object graph of a running coordinator, and runs it."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import TypeAlias

from parallelix.coordinator import secrets as coordinator_secrets
from parallelix.coordinator.anchor_local import LocalAnchor
from parallelix.coordinator.commands import GrantDeposits
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.http.server import Server
from parallelix.coordinator.logging import LogEvent
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.operator import CLOCK_AHEAD_MS, OperatorApp
from parallelix.coordinator.ports import Anchor, Deposits, Registry
from parallelix.coordinator.registry_file import RegistryFile
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import EnvelopeRow, PayloadRow
from parallelix.coordinator.store.store import Store
from parallelix.engine import catalogue, events
from parallelix.engine.core import Engine
from parallelix.protocol.records import Batch

Fatal: TypeAlias = Callable[[BaseException], None]

REGISTRY_POLL_SECONDS = 0.5
CLEAN_SECONDS = 600.0
CLEAN_SLICE = 500
"""Rows deleted in one commit, so that cleaning never holds up a request for long."""
ANCHOR_RETRY_SECONDS = 1.0
GAUGE_SECONDS = 2.0
YOUNG_OBJECTS_MAX = 10_000
"""About ten requests' worth, instead of the interpreter's 700."""


def system_clock() -> int:
    """Unix milliseconds."""
    return time.time_ns() // 1_000_000


@asynccontextmanager
async def running(
    settings: CoordinatorSettings,
    *,
    log: LogEvent,
    on_fatal: Fatal,
    clock: Callable[[], int] = system_clock,
    random_bytes: Callable[[int], bytes] = os.urandom,
) -> AsyncGenerator[Coordinator]:
    """A coordinator that leads its store, from restore to the last commit. Serving HTTP is the caller's."""
    own = coordinator_secrets.load_or_create(settings.folder)
    offers = catalogue.parse(settings.catalogue_path.read_text(), source=str(settings.catalogue_path))
    store = Store.open(settings.database_url)
    readers = Readers.open(settings.database_url)
    try:
        store.acquire(f"{socket.gethostname()}:{os.getpid()}")
        registry = RegistryFile(
            settings.registry_path,
            poll_seconds=REGISTRY_POLL_SECONDS,
            unreadable=lambda reason: log("registry.unreadable", {"reason": reason}),
        )
        registrations = await registry.load()
        engine = Engine(settings.engine(), offers)
        snapshot = store.load(now=clock())
        metrics = Metrics()
        journal = Journal(store, on_fatal=on_fatal, on_commit=metrics.committed)
        journal.start()
        coordinator = Coordinator(
            settings=settings,
            engine=engine,
            readers=readers,
            journal=journal,
            secrets=own,
            metrics=metrics,
            log=log,
            clock=clock,
            random_bytes=random_bytes,
        )
        anchor = LocalAnchor()
        anchoring = Anchoring(coordinator, anchor)
        coordinator.anchor_batch, coordinator.anchor_address = anchoring.put, anchor.address
        step = engine.restore(snapshot, registrations, clock(), random_bytes)
        coordinator.start(step, *await _sealed(readers, engine))
        if store.epoch > 1:
            await _outlive_predecessor(coordinator)
        log("coordinator.started", {"epoch": store.epoch, "open_requests": len(engine.requests)})
        async with contextlib.AsyncExitStack() as stack:
            for work in (
                anchoring.run,
                partial(_follow_registry, coordinator, registry),
                partial(_follow_deposits, coordinator, GrantDeposits(coordinator, readers)),
                partial(_clean, coordinator),
                partial(_gauge, coordinator),
            ):
                stack.push_async_callback(_end, asyncio.create_task(_guarded(work, on_fatal)))
            try:
                yield coordinator
            finally:
                coordinator.stop()
        await journal.close()
    finally:
        await readers.close()
        store.close()


async def run(settings: CoordinatorSettings, *, log: LogEvent, on_ready: Callable[[str], None]) -> None:
    """Serves until SIGTERM or SIGINT. A commit that fails ends the process at once: memory is ahead of the store."""

    def fatal(error: BaseException) -> None:
        log("coordinator.fatal", {"error": str(error) or type(error).__name__})
        os._exit(70)

    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(each, stopping.set)
    async with running(settings, log=log, on_fatal=fatal) as coordinator:
        server = Server(
            build_app(coordinator, OperatorApp(coordinator)),
            host=settings.host,
            port=settings.port,
            connections_per_address_max=settings.connections_per_address_max,
        )
        _calm_collector()
        async with server.serving() as url:
            log("coordinator.serving", {"url": url})
            on_ready(url)
            await stopping.wait()
            coordinator.stop()
    log("coordinator.stopped", {})


def _calm_collector() -> None:
    """What is loaded by now stays, so no collection need look at it again; of what comes, little forms cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS_MAX, 10, 10)


class Anchoring:
    """Hands each closed batch to the anchor, in order, until it is confirmed."""

    def __init__(self, coordinator: Coordinator, anchor: Anchor) -> None:
        self._coordinator = coordinator
        self._anchor = anchor
        self._batches: asyncio.Queue[Batch] = asyncio.Queue()

    def put(self, batch: Batch) -> None:
        self._batches.put_nowait(batch)

    async def run(self) -> None:
        while True:
            batch = await self._batches.get()
            reference = await self._commit(batch)
            await self._coordinator.settle(events.BatchConfirmed(number=batch.number, reference=reference))

    async def _commit(self, batch: Batch) -> str:
        while True:
            try:
                return await self._anchor.commit(batch)
            except OSError as error:
                self._coordinator.log("anchor.failed", {"batch": batch.number, "error": str(error)})
                await asyncio.sleep(ANCHOR_RETRY_SECONDS)


async def _outlive_predecessor(coordinator: Coordinator) -> None:
    """Until every time that an earlier process can have accepted is past (`operator.py`)."""
    coordinator.signed_after = coordinator.started_at + CLOCK_AHEAD_MS
    await asyncio.sleep(max(0, coordinator.signed_after - coordinator.clock()) / 1000)


async def _sealed(readers: Readers, engine: Engine) -> tuple[list[PayloadRow], list[EnvelopeRow]]:
    """The sealed payload of every open request and the envelope of every open attempt."""
    payloads: list[PayloadRow] = []
    envelopes: list[EnvelopeRow] = []
    for request in list(engine.requests.values()):
        payload = await readers.payload(request.request_id)
        assert payload is not None, f"{request.request_id} was admitted without its payload"
        payloads.append(payload)
        attempt = request.open_attempt
        envelope = await readers.envelope(attempt.attempt_id) if attempt is not None else None
        if envelope is not None:
            envelopes.append(envelope)
    return payloads, envelopes


async def _follow_registry(coordinator: Coordinator, registry: Registry) -> None:
    async for changes in registry.changes():
        await coordinator.settle(events.RegistryChanged(registrations=changes.registrations, removed=changes.removed))


async def _follow_deposits(coordinator: Coordinator, deposits: Deposits) -> None:
    async for deposit in deposits.incoming():
        event = events.Grant(grant_id=deposit.deposit_id, account=deposit.account, amount_wei=deposit.amount_wei)
        # A crash may have come between the ledger's commit and the source's: then it is booked already.
        if not await coordinator.readers.has_transfer(event.transfer_id):
            await coordinator.settle(event)
        await deposits.booked(deposit)


async def _clean(coordinator: Coordinator) -> None:
    while True:
        deletes = await coordinator.readers.expired(now=coordinator.clock(), limit=CLEAN_SLICE)
        if deletes:
            await coordinator.journal.wait(coordinator.journal.append([], deletes))
        else:
            await asyncio.sleep(CLEAN_SECONDS)


async def _gauge(coordinator: Coordinator) -> None:
    while True:
        coordinator.measure()
        await asyncio.sleep(GAUGE_SECONDS)


async def _guarded(work: Callable[[], Awaitable[None]], on_fatal: Fatal) -> None:
    """A background task that dies of a bug takes the process along: half a coordinator is worse than none."""
    try:
        await work()
    except asyncio.CancelledError:
        raise
    except BaseException as error:
        on_fatal(error)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task
