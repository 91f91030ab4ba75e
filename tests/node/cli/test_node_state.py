from __future__ import annotations

import itertools
import shutil

import pytest

from parallelix.node import state
from parallelix.node.home import Home
from parallelix.node.logging import open_log
from parallelix.node.state import Event, State, StateMachine

NOW_MS = 1_795_246_707_674


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    shutil.copytree(made_keys.root, home.root)
    return home


def machine(home: Home, node_id: int = 4217) -> StateMachine:
    return StateMachine(home, node_id=node_id, log=open_log(home), now_ms=lambda: NOW_MS)


def transitions(home: Home) -> list[str]:
    return [line.split(" ", 1)[1] for line in home.log.read_text().splitlines()]


@pytest.mark.parametrize(
    ("events", "after"),
    [
        ([], State.INITED),
        ([Event.ATTACHED], State.ACTIVE_IDLE),
        ([Event.ATTACHED, Event.WORK_BEGAN], State.ACTIVE_RUNNING),
        ([Event.ATTACHED, Event.WORK_BEGAN, Event.ATTACHED], State.ACTIVE_RUNNING),
        ([Event.ATTACHED, Event.WORK_BEGAN, Event.WORK_ENDED], State.ACTIVE_IDLE),
        ([Event.ATTACHED, Event.WORK_BEGAN, Event.STOPPED], State.ACTIVE_IDLE),
        ([Event.ATTACHED, Event.IN_COOLDOWN], State.COOLING),
        ([Event.ATTACHED, Event.WORK_BEGAN, Event.IN_COOLDOWN, Event.WORK_ENDED], State.COOLING),
        ([Event.ATTACHED, Event.IN_COOLDOWN, Event.NOT_STAKED], State.RETIRED),
        ([Event.ATTACHED, Event.NOT_STAKED], State.RETIRED),
        ([Event.NOT_STAKED], State.INITED),
        ([Event.IN_COOLDOWN], State.COOLING),
        ([Event.ATTACHED, Event.NOT_STAKED, Event.ATTACHED], State.ACTIVE_IDLE),
    ],
)
def test_the_life_of_a_node(made: Home, events: list[Event], after: State) -> None:
    life = machine(made)
    for event in events:
        life.apply(event)
    assert life.state is after
    assert state.read(made).state is after


def test_each_change_is_logged_and_nothing_else(made: Home) -> None:
    life = machine(made)
    for event in (Event.ATTACHED, Event.ATTACHED, Event.WORK_BEGAN, Event.WORK_ENDED, Event.IN_COOLDOWN):
        life.apply(event)
    assert transitions(made) == [
        "state.transition source=INITED target=ACTIVE.idle cause=attached node=4217",
        "state.transition source=ACTIVE.idle target=ACTIVE.running cause=work_began node=4217",
        "state.transition source=ACTIVE.running target=ACTIVE.idle cause=work_ended node=4217",
        "state.transition source=ACTIVE.idle target=COOLING cause=in_cooldown node=4217",
    ]


@pytest.mark.parametrize(
    ("from_state", "event"),
    [pair for pair in itertools.product(State, Event) if pair[1] not in state.TRANSITIONS[pair[0]]],
)
def test_what_the_table_does_not_allow_raises(from_state: State, event: Event) -> None:
    with pytest.raises(state.IllegalTransition, match=f"{from_state} has no transition for {event}"):
        state.next_state(from_state, event)


def test_work_is_possible_only_while_active() -> None:
    begins = {source for source, events in state.TRANSITIONS.items() if Event.WORK_BEGAN in events}
    assert begins == {State.ACTIVE_IDLE, State.ACTIVE_RUNNING}


def test_every_state_but_the_first_can_be_reached_and_no_event_leads_back_to_it() -> None:
    targets = {target for events in state.TRANSITIONS.values() for target in events.values()}
    assert targets == set(State) - {State.FRESH}


def test_cooling_is_known_after_the_daemon_stopped_with_its_reason_and_time(made: Home) -> None:
    life = machine(made)
    life.apply(Event.ATTACHED)
    life.apply(Event.IN_COOLDOWN, reason="withdrawable from 2026-11-28 08:00 UTC")
    life.apply(Event.STOPPED)
    stored = state.read(made)
    assert (stored.state, stored.node_id, stored.changed_at) == (State.COOLING, "4217", NOW_MS)
    assert stored.reason == "withdrawable from 2026-11-28 08:00 UTC"


def test_a_wrong_node_id_does_not_retire_the_right_node(made: Home) -> None:
    machine(made, 4217).apply(Event.ATTACHED)
    machine(made, 9999).apply(Event.NOT_STAKED)
    assert (state.read(made).state, state.read(made).node_id) == (State.ACTIVE_IDLE, "4217")


def test_another_node_id_starts_over(made: Home) -> None:
    machine(made, 4217).apply(Event.IN_COOLDOWN)
    assert machine(made, 4218).state is State.INITED


def test_a_daemon_killed_while_running_comes_back_idle(made: Home) -> None:
    life = machine(made)
    life.apply(Event.ATTACHED)
    life.apply(Event.WORK_BEGAN)
    assert machine(made).state is State.ACTIVE_IDLE


def test_counters_are_kept_for_status(made: Home) -> None:
    life = machine(made)
    life.apply(Event.ATTACHED)
    life.count(heartbeats=142, served=37, notice=None)
    stored = state.read(made)
    assert (stored.heartbeats, stored.served, stored.last_heartbeat_at) == (142, 37, NOW_MS)


@pytest.mark.parametrize("damage", [b"", b"{", b'{"state":"FLYING"}', b'{"state":"FRESH"}', b"\xff"])
def test_a_damaged_file_means_inited(made: Home, damage: bytes) -> None:
    made.state.write_bytes(damage)
    made.state.chmod(0o600)
    assert state.read(made).state is State.INITED


def test_without_a_key_the_state_is_fresh_whatever_the_file_says(home: Home) -> None:
    home.root.mkdir()
    home.state.write_text('{"state":"RETIRED"}')
    assert state.read(home).state is State.FRESH
