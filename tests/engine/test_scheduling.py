"""Step 3, match: capability, then capacity, then best fit, then reputation; each decides only what the ones before it
leave open. And whoever waits, waits in order, and never for ever."""

from __future__ import annotations

import dataclasses
from typing import Any, cast

import msgspec
import pytest
from world import BIG_DIGEST, DIGEST, SECOND, World

from parallelix.engine import effects, events
from parallelix.engine.catalogue import Priority
from parallelix.engine.pool import Need
from parallelix.engine.queue import queue_key
from parallelix.engine.settings import HOUR_MS, EngineSettings
from parallelix.protocol.messages import ModelInfo

SETTINGS = EngineSettings(chain_id=1)
IN_FRONT = 150


def serve(world: World, request_id: str, *, tokens: int = 20, milliseconds: int = 1_000) -> None:
    attempt_id = world.attempt_of(request_id)
    world.acknowledge(attempt_id)
    world.now += milliseconds
    world.complete(attempt_id, completion_tokens=tokens)


def attach_measured(world: World, node_id: int, *, tokens_per_second: int, **offer: Any) -> None:
    """A node that has shown its speed on one unit."""
    tier = offer.get("tier", 1)
    world.attach(node_id, **offer)
    request_id = world.ask(hardware_tier=tier)
    assert world.node_of(request_id) == node_id, "a newcomer is tried before those that are known"
    serve(world, request_id, tokens=tokens_per_second)


def node_for(world: World, **asked: Any) -> int | None:
    attempt = world.request(world.ask(**asked)).open_attempt
    return None if attempt is None else attempt.node_id


# --- The first signal: capability


def test_what_no_node_that_has_the_model_can_do_is_refused_at_once(world: World) -> None:
    """Waiting would not help; where no node has the model at all, one that can may still come."""
    before = world.try_ask(features=("chat", "tools"))
    assert isinstance(before, effects.Admitted)
    world.attach(1, tier=1, features=("chat",))
    world.attach(2, tier=3, features=("chat", "embeddings"))

    answer = world.try_ask(features=("chat", "tools"))

    assert isinstance(answer, effects.Refused)
    assert answer.code == "unsupported_parameter"
    assert "can do tools; leave" in answer.message
    assert isinstance(world.try_ask(features=("embeddings",), hardware_tier=4), effects.Admitted)
    world.attach(3, features=("chat", "tools"), slots=1)
    assert [type(world.try_ask(features=("chat", "tools"))) for _ in range(2)] == [effects.Admitted] * 2


@pytest.mark.parametrize(
    ("offer", "asked"),
    [
        ({"tier": 1}, {"hardware_tier": 2}),
        ({"digests": ("ff" * 32,)}, {}),
        ({"digests": (BIG_DIGEST,)}, {}),
        ({"context_tokens": 109}, {"prompt_bytes": 40, "max_tokens": 100}),
        ({"features": ("chat",)}, {"features": ("chat", "tools")}),
        ({"features": ()}, {"features": ("chat",)}),
        ({"classes": ("render.frame",)}, {}),
    ],
    ids=["tier", "weights", "another model's weights", "context", "a feature", "no feature", "workload class"],
)
def test_capability_is_a_filter_that_no_other_signal_overrides(
    world: World, offer: dict[str, Any], asked: dict[str, Any]
) -> None:
    """The node that lacks one thing is free and idle; the one that has it is busy. The work waits for the latter."""
    able: dict[str, Any] = {"tier": 2, "digests": (DIGEST,), "context_tokens": 4096, "features": ("chat", "tools")}
    world.attach(2, **able)
    assert node_for(world, **asked) == 2
    world.attach(1, **(able | offer))

    waiting = world.ask(**asked)

    assert world.request(waiting).open_attempt is None
    held = world.engine.held(world.request(waiting))
    assert held is not None and held.reason == "no_free_slot"


@pytest.mark.parametrize(
    ("offer", "asked"),
    [
        ({"tier": 2}, {"hardware_tier": 2}),
        ({"context_tokens": 110}, {"prompt_bytes": 40, "max_tokens": 100}),
        ({"features": ("tools", "chat")}, {"features": ("chat", "tools")}),
    ],
)
def test_capability_needs_no_more_than_what_is_asked(
    world: World, offer: dict[str, Any], asked: dict[str, Any]
) -> None:
    world.attach(1, **offer)

    assert node_for(world, **asked) == 1


def test_a_node_serves_no_more_than_the_tier_its_stake_is_registered_for(world: World) -> None:
    world.register(1, tier=1)
    world.attach(1, tier=4)

    assert node_for(world, hardware_tier=2) is None
    assert node_for(world, hardware_tier=1) == 1


# --- The second: capacity


def test_capacity_decides_among_the_capable_even_against_a_better_fit(world: World) -> None:
    world.attach(1, tier=1)
    world.attach(2, tier=2)
    assert node_for(world) == 1

    assert node_for(world) == 2, "the smaller node is full"
    assert node_for(world) is None


def test_a_free_slot_goes_to_the_first_in_the_queue_that_the_node_can_serve(world: World) -> None:
    world.attach(1)
    running = world.ask()
    for_another_node = world.ask(hardware_tier=3, priority="urgent")
    second = world.ask()

    serve(world, running)

    assert world.request(for_another_node).open_attempt is None, "capability comes first"
    assert world.node_of(second) == 1


def waiting_order(world: World, asked: list[dict[str, Any]]) -> list[int]:
    """In which order requests that were made in this order get the one slot there is."""
    world.attach(1)
    running = world.ask()
    names = {world.ask(**fields): number for number, fields in enumerate(asked)}
    served: list[int] = []
    while len(served) < len(asked):
        serve(world, running, milliseconds=1)
        (running,) = (each for each in names if each in world.engine.requests and world.request(each).open_attempt)
        served.append(names[running])
    return served


def test_urgent_goes_before_expedited_before_standard(world: World) -> None:
    order = waiting_order(world, [{"priority": "standard"}, {"priority": "expedited"}, {"priority": "urgent"}])
    assert order == [2, 1, 0]


def test_within_a_priority_the_less_complex_goes_first(world: World) -> None:
    assert waiting_order(world, [{"max_tokens": 900}, {"max_tokens": 30}, {"max_tokens": 300}]) == [1, 2, 0]


def test_the_same_priority_and_complexity_is_served_in_the_order_of_arrival(world: World) -> None:
    world.attach(1)
    running = world.ask()
    waiting: list[str] = []
    for _ in range(5):
        world.now += 1
        waiting.append(world.ask())
    for expected in waiting:
        serve(world, running, milliseconds=0)
        assert world.node_of(expected) == 1
        running = expected


def test_no_size_overtakes_a_priority(world: World) -> None:
    order = waiting_order(world, [{"max_tokens": 1}, {"priority": "urgent", "max_tokens": 1000}])
    assert order == [1, 0]
    steps: list[tuple[Priority, Priority]] = [("standard", "expedited"), ("expedited", "urgent")]
    for lower, higher in steps:
        small, large = (
            queue_key(SETTINGS, admitted_at=0, priority=priority, complexity_tokens=tokens)
            for priority, tokens in cast("list[tuple[Priority, int]]", [(lower, 0), (higher, 10**9)])
        )
        assert large < small, "whatever the size, the priorities keep their order among those who came together"


def test_who_waits_long_enough_goes_before_whatever_comes_later(world: World) -> None:
    """Ageing: the largest standard request is passed by at most two and a half minutes of later ones."""
    world.attach(1, slots=1)
    running = world.ask(deadline_ms=600 * SECOND)
    world.acknowledge(world.attempt_of(running))
    old = world.ask(max_tokens=1000, queue_ms=3600 * SECOND)
    for _ in range(12):
        world.heartbeat(1)
        world.advance(10 * SECOND)
    still_later = world.ask(priority="urgent", max_tokens=1, queue_ms=3600 * SECOND)
    assert position(world, old) == 1, "after two minutes an urgent one still goes first"
    world.advance(2 * SECOND)
    much_later = world.ask(priority="urgent", max_tokens=1, queue_ms=3600 * SECOND)

    assert [position(world, each) for each in (still_later, old, much_later)] == [0, 1, 2]
    world.complete(world.attempt_of(running), completion_tokens=1)
    serve(world, still_later)
    assert world.node_of(old) == 1
    assert world.request(much_later).open_attempt is None


def position(world: World, request_id: str) -> int:
    held = world.engine.held(world.request(request_id))
    assert held is not None
    return held.position


def test_under_a_steady_flood_of_urgent_work_a_standard_request_is_served_within_its_bound(world: World) -> None:
    """One slot, one urgent request a second, each taking a second: the queue never empties."""
    world.attach(1)
    running = world.ask(priority="urgent")
    patient = world.ask(max_tokens=1000, queue_ms=3600 * SECOND)
    bound_ms = SETTINGS.standard_age_ms + SETTINGS.complexity_age_ms_max + 2 * SECOND
    began = world.now
    while world.request(patient).open_attempt is None:
        assert world.now - began <= bound_ms, "starved"
        world.ask(priority="urgent", max_tokens=1)
        world.heartbeat(1)
        serve(world, running)
        (running,) = (each for each, request in world.engine.requests.items() if request.open_attempt)


@pytest.mark.parametrize(
    ("offer", "able", "asked"),
    [
        ({"features": ("chat",)}, {"features": ("tools",)}, {"features": ("tools",)}),
        ({"context_tokens": 500}, {"context_tokens": 4096}, {"prompt_bytes": 4_000, "max_tokens": 100}),
        ({"tier": 1}, {"tier": 2}, {"hardware_tier": 2}),
    ],
    ids=["a feature", "a longer context", "a higher tier"],
)
def test_work_that_a_node_cannot_serve_never_starves_what_it_can(
    world: World, offer: dict[str, Any], able: dict[str, Any], asked: dict[str, Any]
) -> None:
    """However much of it waits in front, for a node that is able and busy."""
    world.attach(1, **offer)
    running = world.ask()
    world.attach(2, slots=1, **able)
    assert node_for(world, **asked) == 2
    for _ in range(IN_FRONT):
        assert node_for(world, priority="urgent", **asked) is None
    behind = world.ask()

    serve(world, running)

    assert world.node_of(behind) == 1


def test_what_waits_for_a_faster_node_never_starves_what_a_slow_one_can_serve(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=10)
    running = world.ask(max_tokens=10)
    for _ in range(IN_FRONT):
        assert node_for(world, priority="urgent", max_tokens=1000, deadline_ms=2 * SECOND) is None
    behind = world.ask(max_tokens=10)

    serve(world, running, tokens=10)

    assert world.node_of(behind) == 1


def test_what_waits_for_other_nodes_than_the_one_it_failed_on_never_starves_the_rest(world: World) -> None:
    world.attach(1)
    for _ in range(5):
        world.returned(world.attempt_of(world.ask(priority="urgent")), "failed", code="node.runtime_failed")
    running = world.ask()
    behind = world.ask()

    serve(world, running)

    assert world.node_of(behind) == 1


def test_a_freed_slot_looks_at_so_many_waiting_requests_and_no_more() -> None:
    world = World(drain_scan_max=3)
    world.fund()
    world.issue_key()
    world.attach(1, context_tokens=500)
    running = world.ask()
    too_long = [world.ask(priority="urgent", prompt_bytes=4_000, queue_ms=5 * SECOND) for _ in range(3)]
    behind = world.ask()

    serve(world, running)
    assert world.request(behind).open_attempt is None, "the bound"
    world.advance(5 * SECOND)
    assert not any(each in world.engine.requests for each in too_long)
    world.heartbeat(1, paused=True)
    world.heartbeat(1)

    assert world.node_of(behind) == 1


def test_two_events_of_one_moment_never_overbook_a_slot(world: World) -> None:
    world.attach(1, slots=3)
    asked = [world.ask() for _ in range(10)]
    assert [world.request(each).open_attempt is not None for each in asked] == [True] * 3 + [False] * 7
    node = world.engine.pool.nodes[1]
    assert node.slots_free == 0 and len(node.reserved) == 3

    first, second, _ = (world.attempt_of(each) for each in asked[:3])
    world.returned(first, "failed", code="node.runtime_failed")
    world.returned(second, "declined", code="node.busy")

    assert len(node.reserved) == 3
    assert len([each for each in asked if world.request(each).open_attempt]) == 3


def test_a_node_that_comes_back_with_fewer_slots_is_not_given_more_until_it_is_below_them(world: World) -> None:
    world.attach(1, slots=3)
    asked = [world.ask() for _ in range(3)]
    world.now += 1
    world.attach(1, slots=1)
    waiting = world.ask()
    for request_id in asked[:2]:
        serve(world, request_id)
        assert world.request(waiting).open_attempt is None

    serve(world, asked[2])

    assert world.node_of(waiting) == 1


# --- The third: best fit


def test_best_fit_takes_the_smallest_tier_that_does(world: World) -> None:
    for node_id, tier in ((1, 4), (2, 3), (3, 2), (4, 1)):
        world.attach(node_id, tier=tier)

    assert [node_for(world, hardware_tier=2) for _ in range(3)] == [3, 2, 1]
    assert node_for(world) == 4


def test_best_fit_takes_the_slowest_that_clears_the_deadline(world: World) -> None:
    for node_id, speed in ((1, 400), (2, 25), (3, 100)):
        attach_measured(world, node_id, tokens_per_second=speed)

    assert node_for(world, max_tokens=100, deadline_ms=2 * SECOND) == 3, "50 tokens a second are asked for"
    assert node_for(world, max_tokens=100, deadline_ms=2 * SECOND) == 1
    assert node_for(world, max_tokens=100, deadline_ms=4 * SECOND) == 2, "exactly fast enough is enough"


def test_best_fit_never_takes_a_node_that_would_miss_the_deadline_but_says_so(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=20)

    waiting = world.ask(max_tokens=100, deadline_ms=2 * SECOND)

    held = world.engine.held(world.request(waiting))
    assert held is not None and held.reason == "no_node_fast_enough"
    world.attach(2)
    assert world.node_of(waiting) == 2


def test_a_larger_tier_serves_when_the_smaller_is_too_slow(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=20, tier=1)
    attach_measured(world, 2, tokens_per_second=90, tier=2)

    assert node_for(world, max_tokens=100, deadline_ms=2 * SECOND) == 2
    assert node_for(world, max_tokens=20, deadline_ms=2 * SECOND) == 1


def test_best_fit_never_overrides_the_order_of_the_queue(world: World) -> None:
    """The freed node fits the small request best; the urgent one waits in front and gets it."""
    world.attach(1)
    running = world.ask()
    small = world.ask(max_tokens=1)
    large = world.ask(max_tokens=1000, priority="urgent")

    serve(world, running)

    assert world.node_of(large) == 1 and world.request(small).open_attempt is None


def test_speed_is_measured_end_to_end_and_follows_what_a_node_does_lately(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=100)
    node = world.engine.pool.nodes[1]
    assert node.speeds == {DIGEST: 100.0}
    for _ in range(12):
        serve(world, world.ask(max_tokens=1), tokens=20)

    assert 20 < node.speeds[DIGEST] < 22


def test_an_answer_too_short_to_tell_a_speed_measures_none(world: World) -> None:
    world.attach(1)
    serve(world, world.ask(), tokens=7)
    assert world.engine.pool.nodes[1].speeds == {}
    serve(world, world.ask(), tokens=8)
    assert world.engine.pool.nodes[1].speeds == {DIGEST: 8.0}


def pass_time(world: World, *node_ids: int, seconds: int) -> None:
    """Time in which the nodes stay online."""
    for _ in range(seconds // 10):
        world.advance(10 * SECOND)
        for node_id in node_ids:
            world.heartbeat(node_id)


def test_a_node_that_was_too_slow_is_tried_again_when_its_measurement_is_old(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=20)
    waiting = world.ask(max_tokens=100, deadline_ms=2 * SECOND, queue_ms=HOUR_MS)
    life_seconds = world.settings.speed_lifetime_ms // SECOND

    pass_time(world, 1, seconds=life_seconds - 20)
    assert world.request(waiting).open_attempt is None
    pass_time(world, 1, seconds=20)

    assert world.node_of(waiting) == 1
    assert world.engine.pool.nodes[1].speeds == {}


def test_a_speed_counts_from_its_last_measurement(world: World) -> None:
    attach_measured(world, 1, tokens_per_second=20)
    half_seconds = world.settings.speed_lifetime_ms // SECOND // 20 * 10
    pass_time(world, 1, seconds=half_seconds)
    serve(world, world.ask(), tokens=20)

    pass_time(world, 1, seconds=half_seconds + 10)
    assert world.engine.pool.nodes[1].speeds == {DIGEST: 20.0}
    pass_time(world, 1, seconds=half_seconds)

    assert world.engine.pool.nodes[1].speeds == {}


def test_only_time_that_was_the_nodes_own_measures_it(world: World) -> None:
    """Not that of a client that left before the end, and not that of the coordinator while it was down."""
    world.attach(1, slots=3)
    left, resumed, plain = (world.ask() for _ in range(3))
    for request_id in (left, resumed, plain):
        world.acknowledge(world.attempt_of(request_id))
    world.advance(1000)
    world.complete(world.attempt_of(plain), completion_tokens=50)
    assert world.engine.pool.nodes[1].speeds == {DIGEST: 50.0}
    world.step(events.Cancel(request_id=left, charged=True, reason="client_left"))
    world.advance(5000)
    world.complete(world.attempt_of(left), completion_tokens=50, outcome="cancelled")
    assert world.engine.pool.nodes[1].speeds == {DIGEST: 50.0}
    known = dict(world.offers)
    world.restart()
    world.offers.update(known)
    world.advance(5000)
    world.complete(world.attempt_of(resumed), completion_tokens=50)
    assert world.row(resumed).state == "completed"
    assert world.engine.pool.nodes[1].speeds == {}


# --- The fourth: reputation


def equally_fast(world: World, reputations: dict[int, float]) -> None:
    for node_id, reputation in reputations.items():
        attach_measured(world, node_id, tokens_per_second=50)
        node = world.engine.pool.nodes[node_id]
        assert node.reputation == 1.0, "at launch"
        node.online = False
        world.engine.pool.refresh(node)
        node.online, node.reputation = True, reputation
        world.engine.pool.refresh(node)


def test_reputation_decides_between_nodes_that_fit_alike(world: World) -> None:
    equally_fast(world, {1: 0.5, 2: 2.0, 3: 1.0})

    assert [node_for(world) for _ in range(3)] == [2, 3, 1]


def test_reputation_never_overrides_a_better_fit(world: World) -> None:
    equally_fast(world, {1: 0.1})
    attach_measured(world, 2, tokens_per_second=51)
    world.attach(3, tier=2)

    assert [node_for(world) for _ in range(3)] == [1, 2, 3]


# --- When nothing is ideal


def removed(world: World, *node_ids: int) -> None:
    """Takes the nodes out of the pool for three rejected results each."""
    for node_id in node_ids:
        node = world.engine.pool.nodes[node_id]
        while not node.removed_until:
            request_id = world.ask(queue_ms=0)
            assert world.node_of(request_id) == node_id
            world.returned(world.attempt_of(request_id), "rejected", code="poe_mismatch")
            world.step(events.Cancel(request_id=request_id, charged=False, reason="requester"))


def test_if_every_candidate_is_penalised_the_least_bad_serves(world: World) -> None:
    world.attach(1)
    removed(world, 1)
    world.attach(2)
    removed(world, 2)
    assert {node.node_id for node in world.engine.pool.penalised()} == {1, 2}
    # One more against node 1, which is now the worse of the two.
    world.engine.pool.nodes[1].rejections.append(world.now)

    assert node_for(world) == 2, "a penalty never empties the pool"
    assert node_for(world) == 1
    waiting = world.ask()
    held = world.engine.held(world.request(waiting))
    assert held is not None and held.reason == "no_free_slot", "they are capable, only busy"


def test_a_penalised_node_serves_nothing_while_another_can_even_if_that_one_is_busy(world: World) -> None:
    world.attach(1)
    removed(world, 1)
    world.attach(2)

    assert node_for(world) == 2
    assert node_for(world) is None


@pytest.mark.parametrize("what", ["offline", "paused", "cooling", "removed", "model gone"])
def test_the_least_bad_takes_over_what_waits_when_the_last_good_node_goes(world: World, what: str) -> None:
    world.attach(1, slots=4)
    removed(world, 1)
    world.attach(2)
    running = world.ask()
    world.acknowledge(world.attempt_of(running))
    waiting = [world.ask() for _ in range(3)]
    assert not any(world.request(each).open_attempt for each in waiting)

    if what == "offline":
        for _ in range(3):
            world.heartbeat(1)
            world.advance(10 * SECOND)
    elif what == "paused":
        world.heartbeat(2, paused=True)
    elif what == "model gone":
        world.now += 1
        world.attach(2, digests=(BIG_DIGEST,))
    elif what == "removed":
        world.engine.pool.nodes[2].rejections.extend([world.now] * 2)
        world.returned(world.attempt_of(running), "rejected", code="poe_mismatch")
    else:
        world.register(2, state="cooling")

    nodes = [world.node_of(each) for each in waiting]
    # A node that is removed for one bad result more is itself the least bad of two.
    assert nodes.count(1) >= 2 and set(nodes) <= ({1, 2} if what == "removed" else {1})


def test_the_least_bad_must_be_capable_and_have_a_slot(world: World) -> None:
    world.attach(1, tier=1, features=("chat",), context_tokens=600)
    removed(world, 1)

    beyond: list[dict[str, Any]] = [
        {"hardware_tier": 2},
        {"features": ("tools",)},
        {"model": "big"},
        {"prompt_bytes": 4 * 501, "max_tokens": 100},
    ]
    for asked in beyond:
        assert node_for(world, **asked) is None
        assert world.logged("request.held")[-1]["reason"] == "no_capable_node"
    assert node_for(world) == 1
    assert node_for(world) is None


# --- What is said of it


def test_a_held_request_knows_its_place_and_when_it_may_be_served(world: World) -> None:
    world.attach(1, slots=2)
    serve(world, world.ask(), tokens=20, milliseconds=4_000)
    for _ in range(2):
        world.ask()
    waiting = [world.ask() for _ in range(3)]

    held = [world.engine.held(world.request(each)) for each in waiting]

    assert sorted((each.position, each.estimate_seconds) for each in held if each) == [(0, 2.0), (1, 4.0), (2, 6.0)]
    assert world.engine.service_seconds("small") == 4.0


def test_nothing_is_estimated_before_anything_was_measured(world: World) -> None:
    held = world.engine.held(world.request(world.ask()))

    assert held is not None and held.estimate_seconds is None
    assert world.engine.service_seconds("small") is None


def need(**changes: Any) -> Need:
    ordinary: dict[str, Any] = {
        "workload_class": "ai.inference",
        "digests": (DIGEST,),
        "tier": 1,
        "context_tokens": 10,
        "features": frozenset[str](),
        "tokens": 10,
        "deadline_ms": SECOND,
    }
    return Need(**(ordinary | changes))


def test_a_node_with_two_weights_of_one_model_counts_once(world: World) -> None:
    world.attach(1, digests=(DIGEST, BIG_DIGEST), slots=2)
    world.attach(2)
    pool, both = world.engine.pool, need(digests=(DIGEST, BIG_DIGEST))

    assert pool.capable_nodes(both) == 2
    assert pool.slots(both) == (3, 3)
    assert pool.capable_nodes(both, frozenset({1, 2, 99})) == 0
    assert pool.capable_nodes(both, frozenset({1})) == 1
    assert not pool.any_capable(both, frozenset({1, 2}))
    assert pool.any_capable(both, frozenset({1}))


def sharing(world: World, *entries: ModelInfo, node_id: int = 1, slots: int = 1) -> None:
    """Attaches a node whose manifest lists exactly these models."""
    world.attach(node_id, slots=slots)
    node = world.engine.pool.nodes[node_id]
    world.now += 10_000
    manifest = msgspec.structs.replace(node.manifest, models=entries, issued_at=node.issued_at + 1)
    answer = world.step(
        events.Attached(node_id=node_id, session="s", manifest=manifest, manifest_json="{}", public_key=node.public_key)
    )
    assert answer is None


def model(name: str, digest: str = DIGEST, *, context_tokens: int = 4096, features: tuple[str, ...] = ()) -> ModelInfo:
    return ModelInfo(name=name, digest=digest, context_tokens=context_tokens, features=features)


def test_the_same_weights_listed_twice_count_with_their_longest_context_and_that_one_is_offered(world: World) -> None:
    sharing(world, model("short", context_tokens=100), model("long", context_tokens=4000), model("middle"))
    attempt_id = world.attempt_of(world.ask(prompt_bytes=8_000, max_tokens=100))
    assert world.offers[attempt_id].model == "middle"
    assert [each.name for each in world.engine.pool.nodes[1].models] == ["middle"]


def test_of_two_weights_of_one_model_the_one_that_suits_is_offered(world: World) -> None:
    sharing(world, model("plain", BIG_DIGEST), model("tools", features=("tools",)))
    pool, node = world.engine.pool, world.engine.pool.nodes[1]
    both = need(digests=(DIGEST, BIG_DIGEST), tokens=10, deadline_ms=SECOND)

    assert pool.model_for(node, both).name == "plain"
    assert pool.model_for(node, dataclasses.replace(both, features=frozenset({"tools"}))).name == "tools"
    node.speeds[BIG_DIGEST] = 9.9
    assert pool.model_for(node, both).name == "tools", "the other is too slow"
    node.speeds[DIGEST] = 9.9
    assert pool.model_for(node, both).name == "plain", "both are; somebody asked for it all the same"


def test_a_node_that_attaches_ever_anew_with_other_offers_leaves_nothing_behind_that_a_match_must_pass(
    world: World,
) -> None:
    pool = world.engine.pool
    for context_tokens in range(200, 260):
        world.now += 1
        many = tuple(model(f"m{at}", context_tokens=context_tokens + at) for at in range(100))
        sharing(world, *many, node_id=1)
    assert pool.groups == 1
    world.register(1, state="retired")
    assert pool.groups == 0


def test_a_class_that_nobody_can_ask_for_takes_no_place(world: World) -> None:
    world.attach(1, classes=("ai.inference", "x", "y"))
    assert world.engine.pool.groups == 1
    assert node_for(world) == 1
