"""The life of a node on this machine, as one table.

    FRESH     installed, no node key
    INITED    node key present, config written; also while the stake is not there yet
    ACTIVE    attached to a staked node: idle (no work, or machine off) or running (inference under way)
    COOLING   the coordinator answered 403 in_cooldown: requestUnstake was signed, seven days run
    RETIRED   the coordinator answered 403 not_staked to a node that had been active: the principal is back

Every change logs `state.transition` and is kept in `state.json`, so `status` knows COOLING and RETIRED after the daemon
has stopped. A key that is registered again under a new node id starts over at INITED.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import msgspec
from msgspec import Meta

from parallelix import private_files
from parallelix.node.home import Home
from parallelix.protocol.messages import Notice

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger


class State(StrEnum):
    FRESH = "FRESH"
    INITED = "INITED"
    ACTIVE_IDLE = "ACTIVE.idle"
    ACTIVE_RUNNING = "ACTIVE.running"
    COOLING = "COOLING"
    RETIRED = "RETIRED"


class Event(StrEnum):
    KEYS_MADE = "keys_made"
    ATTACHED = "attached"
    WORK_BEGAN = "work_began"
    WORK_ENDED = "work_ended"
    """The last unit under way ended; the node is free."""
    STOPPED = "stopped"
    IN_COOLDOWN = "in_cooldown"
    NOT_STAKED = "not_staked"


TRANSITIONS: dict[State, dict[Event, State]] = {
    State.FRESH: {
        Event.KEYS_MADE: State.INITED,
    },
    State.INITED: {
        Event.KEYS_MADE: State.INITED,
        Event.ATTACHED: State.ACTIVE_IDLE,
        Event.STOPPED: State.INITED,
        Event.IN_COOLDOWN: State.COOLING,
        # Not registered yet, or not this id: nothing was given back, so nothing is retired.
        Event.NOT_STAKED: State.INITED,
    },
    State.ACTIVE_IDLE: {
        Event.KEYS_MADE: State.INITED,
        Event.ATTACHED: State.ACTIVE_IDLE,
        Event.WORK_BEGAN: State.ACTIVE_RUNNING,
        Event.WORK_ENDED: State.ACTIVE_IDLE,
        Event.STOPPED: State.ACTIVE_IDLE,
        Event.IN_COOLDOWN: State.COOLING,
        Event.NOT_STAKED: State.RETIRED,
    },
    State.ACTIVE_RUNNING: {
        Event.KEYS_MADE: State.INITED,
        Event.ATTACHED: State.ACTIVE_RUNNING,
        Event.WORK_BEGAN: State.ACTIVE_RUNNING,
        Event.WORK_ENDED: State.ACTIVE_IDLE,
        Event.STOPPED: State.ACTIVE_IDLE,
        Event.IN_COOLDOWN: State.COOLING,
        Event.NOT_STAKED: State.RETIRED,
    },
    State.COOLING: {
        Event.KEYS_MADE: State.INITED,
        Event.ATTACHED: State.ACTIVE_IDLE,
        # Attempts handed out before requestUnstake may still be returned.
        Event.WORK_ENDED: State.COOLING,
        Event.STOPPED: State.COOLING,
        Event.IN_COOLDOWN: State.COOLING,
        Event.NOT_STAKED: State.RETIRED,
    },
    State.RETIRED: {
        Event.KEYS_MADE: State.INITED,
        Event.ATTACHED: State.ACTIVE_IDLE,
        Event.WORK_ENDED: State.RETIRED,
        Event.STOPPED: State.RETIRED,
        Event.IN_COOLDOWN: State.COOLING,
        Event.NOT_STAKED: State.RETIRED,
    },
}


_ACTIVE = {State.ACTIVE_IDLE, State.ACTIVE_RUNNING}


class IllegalTransition(Exception):
    """Our own mistake: an event in a state that the table does not allow it in."""

    def __init__(self, state: State, event: Event) -> None:
        super().__init__(f"state {state} has no transition for {event}")
        self.state = state
        self.event = event


def next_state(state: State, event: Event) -> State:
    """Raises `IllegalTransition`."""
    try:
        return TRANSITIONS[state][event]
    except KeyError:
        raise IllegalTransition(state, event) from None


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """`state.json`. Counters are those of the daemon that ran last; `changed_at` is Unix milliseconds."""

    state: State
    node_id: Annotated[str, Meta(pattern="^[0-9]{0,78}$")] = ""
    changed_at: Annotated[int, Meta(ge=0)] = 0
    reason: Annotated[str, Meta(max_length=512)] = ""
    heartbeats: Annotated[int, Meta(ge=0)] = 0
    served: Annotated[int, Meta(ge=0)] = 0
    last_heartbeat_at: Annotated[int, Meta(ge=0)] = 0
    notice: Notice | None = None
    """What the last heartbeat was answered."""


def read(home: Home) -> Stored:
    """What `state.json` says; FRESH without a node key, INITED where the file is missing or damaged."""
    if not home.node_key.exists():
        return Stored(state=State.FRESH)
    try:
        stored = msgspec.json.decode(private_files.read(home.state), type=Stored)
    except (FileNotFoundError, private_files.PrivateFileRefused, msgspec.DecodeError, UnicodeDecodeError):
        return Stored(state=State.INITED)
    return Stored(state=State.INITED) if stored.state is State.FRESH else stored


def write(home: Home, stored: Stored, *, durable: bool) -> None:
    private_files.replace(home.state, msgspec.json.encode(stored) + b"\n", durable=durable)


class StateMachine:
    """The state of one node id, logged and kept on disk as it changes. `now_ms` is the clock, Unix milliseconds."""

    def __init__(self, home: Home, *, node_id: int, log: BoundLogger, now_ms: Callable[[], int]) -> None:
        stored = read(home)
        if stored.node_id != str(node_id):
            stored = Stored(state=State.INITED)
        self._home = home
        self._node_id = node_id
        self._log = log
        self._now_ms = now_ms
        self._stored = stored
        # A daemon that was killed in mid-request left `running` behind.
        self.apply(Event.STOPPED)
        self._stored = msgspec.structs.replace(self._stored, heartbeats=0, served=0)

    @property
    def state(self) -> State:
        return self._stored.state

    def apply(self, event: Event, *, reason: str = "") -> State:
        """Moves on. Raises `IllegalTransition`; logs and writes only what changed."""
        before = self._stored.state
        after = next_state(before, event)
        if after is not before:
            self._log.info("state.transition", source=before, target=after, cause=event, node=self._node_id)
            self._stored = msgspec.structs.replace(
                self._stored, state=after, node_id=str(self._node_id), changed_at=self._now_ms(), reason=reason[:512]
            )
            # Idle and running alternate with every request, and a new daemon begins idle whatever the file says.
            write(self._home, self._stored, durable=not {before, after} <= _ACTIVE)
        return after

    @property
    def notice(self) -> Notice | None:
        return self._stored.notice

    def count(self, *, heartbeats: int, served: int, notice: Notice | None) -> None:
        """Totals since the daemon started, for `status`; call it once a heartbeat, not once a request."""
        self._stored = msgspec.structs.replace(
            self._stored, heartbeats=heartbeats, served=served, last_heartbeat_at=self._now_ms(), notice=notice
        )
        if self._stored.node_id:
            write(self._home, self._stored, durable=False)
