"""The node's daemon: stays attached, proves that it is there, takes work up to its slots and returns it.

    heart.py      heartbeats, their own task on the coordinator's clock
    desk.py       the inbox, the slots, the attempts (each one task: executor.py)
    offer.py      models, looked at every few minutes; a change attaches anew
    session.py    attached, whatever the coordinator forgets; link.py: one signed call

It ends by a signal (drain: what runs is finished and returned), by a second signal (at once), or because the
coordinator says 403: then what runs is still returned, nothing new is taken, and the exit code is 0 so that no service
manager starts it again. Killed, it leaves nothing behind that the next start would mind.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import signal
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from parallelix.node import errors, sealing
from parallelix.node.clock import CoordinatorClock
from parallelix.node.config import paused_because
from parallelix.node.daemon_settings import DaemonSettings
from parallelix.node.desk import Desk
from parallelix.node.events import DaemonEvent, Level, Reporter
from parallelix.node.executor import Workplace
from parallelix.node.heart import Heart
from parallelix.node.home import Home
from parallelix.node.keys import NodeKeys
from parallelix.node.life import Life
from parallelix.node.link import Link, NotBacked, Refused
from parallelix.node.logging import node_logger
from parallelix.node.offer import Offer
from parallelix.node.runtimes import base
from parallelix.node.session import Session
from parallelix.node.uptime_log import UptimeLog
from parallelix.protocol import messages

THREADS_MAX = 4
"""They only do RSA and hashing, a millisecond each."""
FAREWELL_SECONDS = 3.0
"""For the heartbeat that says that this node is stopping. Without it the coordinator finds out by itself."""

__all__ = ["DaemonEvent", "DaemonExit", "DaemonSettings", "run_daemon"]


@dataclass(frozen=True, slots=True, kw_only=True)
class DaemonExit:
    """`reason` is `stopped`, `runtime_not_ready`, or the coordinator's code: `not_staked`, `in_cooldown`,
    `key_mismatch`, `tier_mismatch`, …"""

    reason: str
    message: str
    exit_code: int


async def run_daemon(
    settings: DaemonSettings,
    *,
    keys: NodeKeys,
    runtime: base.Runtime,
    on_event: Callable[[DaemonEvent], None],
    seal_result: Callable[..., sealing.Sealed] = sealing.seal_result,
) -> DaemonExit:
    """Runs until a signal or a refusal ends it. SIGTERM and SIGINT are its own meanwhile, in the main thread.

    `seal_result` proves and seals each result, off the event loop.
    """
    threads = ThreadPoolExecutor(min(THREADS_MAX, os.cpu_count() or 1), thread_name_prefix="sealing")
    link = Link(
        settings.coordinator_url,
        chain_id=settings.chain_id,
        node_id=settings.node_id,
        key=keys.node,
        clock=CoordinatorClock(),
        version=importlib.metadata.version("parallelix"),
    )
    try:
        async with link:
            daemon = _Daemon(
                settings,
                keys=keys,
                runtime=runtime,
                reporter=Reporter(node_logger(), on_event),
                link=link,
                threads=threads,
                seal_result=seal_result,
            )
            return await daemon.run()
    finally:
        threads.shutdown(wait=False, cancel_futures=True)


class _Daemon:
    """The parts of one run, and how it ends."""

    def __init__(
        self,
        settings: DaemonSettings,
        *,
        keys: NodeKeys,
        runtime: base.Runtime,
        reporter: Reporter,
        link: Link,
        threads: ThreadPoolExecutor,
        seal_result: Callable[..., sealing.Sealed],
    ) -> None:
        self._settings = settings
        self._home = Home(settings.home)
        self._runtime_name = runtime.name
        self._reporter = reporter
        self._life = Life(self._home, node_id=settings.node_id, reporter=reporter)
        self._offer = Offer(settings, keys=keys, runtime=runtime, reporter=reporter)
        self._session = Session(
            link, build_manifest=self._offer.manifest, on_attached=self._attached, reporter=reporter
        )
        place = Workplace(
            node_id=settings.node_id,
            chain_id=settings.chain_id,
            keys=keys,
            runtime=runtime,
            link=link,
            session=self._session,
            threads=threads,
            models=self._offer.digests,
            seal_result=seal_result,
        )
        self._desk = Desk(
            place,
            slots=settings.slots,
            life=self._life,
            reporter=reporter,
            on_runtime_trouble=self._offer.look_soon,
        )
        self._uptime_log = UptimeLog(settings.home)
        self._heart = Heart(
            node_id=settings.node_id,
            chain_id=settings.chain_id,
            link=link,
            session=self._session,
            describe=self._heartbeat,
            life=self._life,
            uptime_log=self._uptime_log,
            reporter=reporter,
        )
        self._signalled = asyncio.Event()

    async def run(self) -> DaemonExit:
        try:
            await self._offer.read()
        except base.RuntimeFailed as error:
            return self._end("runtime_not_ready", str(error), errors.EXIT_RUNTIME)
        if not self._offer.digests:
            reason = f"{self._runtime_name} has none of the models to serve; run: parallelix-node models pull"
            return self._end("runtime_not_ready", reason, errors.EXIT_RUNTIME)
        with self._signals_handled():
            try:
                return await self._run()
            finally:
                await self._desk.drop()
                self._life.stopped()
                self._uptime_log.close()

    async def _run(self) -> DaemonExit:
        settings = self._settings
        self._reporter.tell(
            "start", node=settings.node_id, mode=settings.mode, model=self._offer.names, slots=settings.slots
        )
        serving = asyncio.create_task(self._serve())
        signalled = asyncio.create_task(self._signalled.wait())
        try:
            await asyncio.wait((serving, signalled), return_when=asyncio.FIRST_COMPLETED)
            if serving.done():
                return await self._leave(serving.exception())
            return await self._drain()
        finally:
            await _cancelled((serving, signalled))

    async def _serve(self) -> None:
        """For ever. Raises `Refused` when the coordinator does not want this node."""
        await self._session.renew("")
        parts = [
            asyncio.create_task(part)
            for part in (self._heart.run(), self._desk.poll(), self._desk.poll_full(), self._watch_offer())
        ]
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            await _cancelled(parts)

    async def _watch_offer(self) -> None:
        while True:
            session = self._session.name
            await self._offer.changed()
            self._look_at_pause()
            self._heart.beat_soon()
            if not self._offer.runtime_down:
                await self._session.renew(session)

    def _attached(self, facts: messages.Attached) -> None:
        self._life.attached()
        self._reporter.tell(
            "attached", node=self._settings.node_id, session=facts.session[:8], models=len(self._offer.digests)
        )
        self._heart.beat_soon()

    def _heartbeat(self) -> messages.Heartbeat:
        self._look_at_pause()
        reason = "draining" if self._desk.draining else self._desk.pause
        return messages.Heartbeat(slots_free=self._desk.free_slots(), paused=bool(reason), message=reason[:128])

    def _look_at_pause(self) -> None:
        # Hours are the operator's local time.
        pause = paused_because(self._home, self._settings.hours, datetime.now().astimezone())
        if self._offer.runtime_down:
            pause = f"the runtime {self._runtime_name} does not answer"
        if pause != self._desk.pause:
            self._reporter.tell("paused" if pause else "resumed", reason=pause or "taking work again")
            self._desk.set_pause(pause)

    @contextmanager
    def _signals_handled(self) -> Generator[None]:
        loop, handled = asyncio.get_running_loop(), list[signal.Signals]()
        numbers = [signal.SIGTERM, signal.SIGINT]
        # A terminal that closes drains the node too, unless `nohup` said otherwise.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            numbers.append(signal.SIGHUP)
        for number in numbers:
            # Only a main thread may have signals; elsewhere whoever runs us cancels us.
            with suppress(ValueError, RuntimeError, NotImplementedError):
                loop.add_signal_handler(number, self._on_signal)
                handled.append(number)
        try:
            yield
        finally:
            for number in handled:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        if self._signalled.is_set():
            self._desk.hurry()
        self._signalled.set()

    async def _drain(self) -> DaemonExit:
        self._desk.begin_draining()
        self._reporter.tell("draining", running=self._desk.running, count=self._desk.returning)
        self._heart.told_paused.clear()
        self._heart.beat_soon()
        if self._session.attached:
            with suppress(TimeoutError):
                async with asyncio.timeout(FAREWELL_SECONDS):
                    await self._heart.told_paused.wait()
        await self._desk.finish()
        await self._desk.drop()
        left = f"{self._desk.dropped} units were dropped" if self._desk.dropped else "nothing was left undone"
        return self._end("stopped", f"stopped by a signal; {left}", errors.EXIT_STOPPED)

    async def _leave(self, refusal: BaseException | None) -> DaemonExit:
        """The coordinator wants this node no more. What it handed out before may still return."""
        if not isinstance(refusal, Refused):
            raise refusal or AssertionError("serving ended without a reason")
        self._desk.begin_draining()
        self._life.refused(refusal.code, refusal.message)
        await self._desk.finish()
        if isinstance(refusal, NotBacked):
            exit_code = errors.EXIT_STOPPED
        else:
            exit_code = errors.EXIT_TIER if refusal.code == "tier_mismatch" else errors.EXIT_FAILED
        return self._end(refusal.code, refusal.message, exit_code)

    def _end(self, reason: str, message: str, exit_code: int) -> DaemonExit:
        self._life.stopped()
        level: Level = "info" if exit_code == errors.EXIT_STOPPED else "error"
        self._reporter.tell(
            "stop", level=level, reason=reason, message=message, exit_code=exit_code, served=self._life.served
        )
        return DaemonExit(reason=reason, message=message, exit_code=exit_code)


async def _cancelled(tasks: Sequence[asyncio.Task[None] | asyncio.Task[Literal[True]]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
