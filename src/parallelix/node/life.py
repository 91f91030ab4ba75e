"""The daemon's side of the state machine: when work begins and ends, and what a refusal makes of the node.

A disk that takes no more must not take a node off the network, so what cannot be written is told and gone on from.
"""

from __future__ import annotations

import asyncio
import time

from parallelix.node import state
from parallelix.node.events import DaemonEvent, Reporter
from parallelix.node.home import Home
from parallelix.node.notice import news
from parallelix.protocol.messages import Notice

IDLE_SECONDS = 0.5
"""One request right after another is one time of running, not a change of state in between."""


class Life:
    """`served` counts results that were accepted, `heartbeats` those that were answered."""

    def __init__(self, home: Home, *, node_id: int, reporter: Reporter) -> None:
        self.served = 0
        self.heartbeats = 0
        self._reporter = reporter
        self._loop = asyncio.get_running_loop()
        self._running = False
        self._left = False
        self._idle_timer: asyncio.TimerHandle | None = None
        self._machine = state.StateMachine(
            home, node_id=node_id, log=reporter.log, now_ms=lambda: int(time.time() * 1000)
        )

    def attached(self) -> None:
        self._apply(state.Event.ATTACHED)

    def working(self, units: int) -> None:
        """How many units are under way now."""
        if units:
            self._cancel_idle()
            if not self._running and not self._left:
                self._running = True
                self._apply(state.Event.WORK_BEGAN)
        elif self._running and self._idle_timer is None:
            self._idle_timer = self._loop.call_later(IDLE_SECONDS, self._idle)

    def refused(self, code: str, reason: str) -> None:
        self._left = True
        if code == "in_cooldown":
            self._apply(state.Event.IN_COOLDOWN, reason=reason)
        elif code == "not_staked":
            self._apply(state.Event.NOT_STAKED, reason=reason)

    def beat(self, notice: Notice | None = None) -> None:
        """A heartbeat was answered, with this."""
        self.heartbeats += 1
        for each in news(self._machine.notice, notice) if notice is not None else ():
            self._reporter.report(each)
        try:
            self._machine.count(heartbeats=self.heartbeats, served=self.served, notice=notice)
        except OSError as error:
            self._disk_trouble(error)
        self._reporter.report_unlogged(DaemonEvent(name="heartbeat", fields={"heartbeats": self.heartbeats}))

    def stopped(self) -> None:
        self._cancel_idle()
        if self._running:
            self._idle()
        self._apply(state.Event.STOPPED)

    def _idle(self) -> None:
        self._idle_timer = None
        self._running = False
        self._apply(state.Event.WORK_ENDED)

    def _cancel_idle(self) -> None:
        if self._idle_timer is not None:
            self._idle_timer.cancel()
            self._idle_timer = None

    def _apply(self, event: state.Event, *, reason: str = "") -> None:
        before = self._machine.state
        try:
            after = self._machine.apply(event, reason=reason)
        except OSError as error:
            self._disk_trouble(error)
            return
        if after is not before:
            fields = {"source": str(before), "target": str(after), "cause": str(event)}
            self._reporter.report_unlogged(DaemonEvent(name="state.transition", fields=fields))

    def _disk_trouble(self, error: OSError) -> None:
        self._reporter.tell("state.lost", level="warning", reason=error.strerror or "disk error")
