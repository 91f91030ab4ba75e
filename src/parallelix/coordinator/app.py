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
from typing import TYPE_CHECKING, TypeAlias

import msgspec

from parallelix.coordinator import secrets as coordinator_secrets
from parallelix.coordinator.anchor_local import LocalAnchor
from parallelix.coordinator.auditing import load_cards
from parallelix.coordinator.commands import GrantDeposits
from parallelix.coordinator.epochs import Epochs, LocalEpochs
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.http.server import Server
from parallelix.coordinator.logging import LogEvent
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.operator import CLOCK_AHEAD_MS, OperatorApp
from parallelix.coordinator.ports import Anchor, ChainNotUsable, Deposits, Registry
from parallelix.coordinator.registry_file import RegistryFile
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import ClaimRow, EnvelopeRow, PayloadRow
from parallelix.coordinator.store.store import Store
from parallelix.engine import catalogue, effects, events
from parallelix.engine.core import Engine
from parallelix.engine.snapshot import Snapshot
from parallelix.protocol.records import Batch

if TYPE_CHECKING:
    from parallelix.coordinator.onchain.running import ChainSide

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
    """A coordinator that leads its store, from restore to the last commit. Serving HTTP is the caller's.

    Raises `CardRefused`, `ChainNotUsable`, `CatalogueError`, `RegistryUnreadable`, `SecretRefused` and `StoreError`
    where it cannot begin.
    """
    async with contextlib.AsyncExitStack() as stack:
        side = await stack.enter_async_context(_on_chain(settings, log)) if settings.is_on_chain else None
        if side is not None:
            settings = msgspec.structs.replace(settings, chain_id=side.deployment.chain_id)
        yield await stack.enter_async_context(
            _leading(settings, side, log=log, on_fatal=on_fatal, clock=clock, random_bytes=random_bytes)
        )


def _on_chain(settings: CoordinatorSettings, log: LogEvent) -> contextlib.AbstractAsyncContextManager[ChainSide]:
    # Only here, since a coordinator on no chain need not have what speaks to one.
    from parallelix.coordinator.onchain.running import opened

    return opened(settings, log=log)


@asynccontextmanager
async def _leading(
    settings: CoordinatorSettings,
    side: ChainSide | None,
    *,
    log: LogEvent,
    on_fatal: Fatal,
    clock: Callable[[], int],
    random_bytes: Callable[[int], bytes],
) -> AsyncGenerator[Coordinator]:
    own = coordinator_secrets.load_or_create(settings.folder)
    offers = catalogue.parse(settings.catalogue_path.read_text(), source=str(settings.catalogue_path))
    cards = load_cards(settings.folder)
    store = Store.open(settings.database_url)
    readers = Readers.open(settings.database_url)
    try:
        store.acquire(f"{socket.gethostname()}:{os.getpid()}")
        registry = _registry_file(settings, log) if side is None else None
        registrations = await registry.load() if registry is not None else ()
        engine = Engine(settings.engine() if side is None else side.engine_settings, offers)
        snapshot = store.load(now=clock())
        _require_same_kind(snapshot, side)
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
            cards=cards,
        )
        if side is not None:
            works = side.join(coordinator)
        else:
            assert registry is not None
            works = [_anchor_in_store(coordinator).run, partial(_follow_registry, coordinator, registry)]
        step = engine.restore(snapshot, registrations, clock(), random_bytes)
        if settings.audits:
            # Before anything is offered in an epoch whose draws could never be verified.
            Epochs(coordinator).require_own()
        coordinator.start(step, *await _sealed(readers, engine))
        if settings.audits and side is None:
            epochs = LocalEpochs(coordinator)
            await epochs.turn()
            works.append(epochs.run)
        if store.epoch > 1:
            await _outlive_predecessor(coordinator)
        log("coordinator.started", {"epoch": store.epoch, "open_requests": len(engine.requests)})
        async with contextlib.AsyncExitStack() as stack:
            for work in (
                *works,
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


def _registry_file(settings: CoordinatorSettings, log: LogEvent) -> RegistryFile:
    return RegistryFile(
        settings.registry_path,
        poll_seconds=REGISTRY_POLL_SECONDS,
        unreadable=lambda reason: log("registry.unreadable", {"reason": reason}),
    )


def _anchor_in_store(coordinator: Coordinator) -> Anchoring:
    anchor = LocalAnchor()
    anchoring = Anchoring(coordinator, anchor)
    coordinator.anchor_batch, coordinator.anchor_address = anchoring.put, anchor.address
    return anchoring


def _require_same_kind(snapshot: Snapshot, side: ChainSide | None) -> None:
    """Batches and credits of a network on no chain have no place on one, nor the other way round."""
    if side is None and snapshot.cursor is not None:
        raise ChainNotUsable(
            f"this store belongs to a network on a chain, read up to block {snapshot.cursor.block}: start it with"
            " --deployment, or give another folder"
        )
    if side is not None and snapshot.cursor is None and (snapshot.batches or snapshot.records):
        raise ChainNotUsable(
            "this store belongs to a network on no chain, whose records no contract can anchor: start it without a"
            " deployment file, or give another folder"
        )


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

    def put(self, batch: Batch, epoch: int) -> None:
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


async def _sealed(readers: Readers, engine: Engine) -> tuple[list[PayloadRow], list[EnvelopeRow], list[ClaimRow]]:
    """The sealed payload of every open request, the envelope of every open attempt, the claim of every open audit."""
    payloads: list[PayloadRow] = []
    envelopes: list[EnvelopeRow] = []
    claims: list[ClaimRow] = []
    for request in list(engine.requests.values()):
        if request.audit_id:
            claim = await readers.claim(request.audit_id)
            assert claim is not None, f"{request.audit_id} was opened without its claim"
            claims.append(claim)
            continue
        payload = await readers.payload(request.request_id)
        assert payload is not None, f"{request.request_id} was admitted without its payload"
        payloads.append(payload)
        attempt = request.open_attempt
        envelope = await readers.envelope(attempt.attempt_id) if attempt is not None else None
        if envelope is not None:
            envelopes.append(envelope)
    return payloads, envelopes, claims


async def _follow_registry(coordinator: Coordinator, registry: Registry) -> None:
    async for changes in registry.changes():
        await coordinator.settle(events.RegistryChanged(registrations=changes.registrations, removed=changes.removed))


async def _follow_deposits(coordinator: Coordinator, deposits: Deposits) -> None:
    async for deposit in deposits.incoming():
        event = events.Grant(grant_id=deposit.deposit_id, account=deposit.account, amount_wei=deposit.amount_wei)
        # A crash may have come between the ledger's commit and the source's: then it is booked already.
        if not await coordinator.readers.has_transfer(event.transfer_id):
            answer = await coordinator.settle(event)
            if isinstance(answer, effects.Refused):
                await deposits.refused(deposit, answer.message)
                continue
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
