"""Whether a node counts as online: it acknowledges units in time, and has lately met the speed floor of its tier."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from world import BIG_DIGEST, CATALOGUE, DIGEST, START_MS, World, registration

from parallelix.engine import challenges, effects, events
from parallelix.engine.catalogue import Catalogue
from parallelix.engine.chain_facts import NodeWentOnline
from parallelix.engine.rows import AuditRow, NodeTrustRow, RecordRow, RequestRow, TransferRow
from parallelix.engine.settings import HOUR_MS, MINUTE_MS, SECOND_MS
from parallelix.engine.uptime import SLOT_MS
from parallelix.protocol.messages import Notice

FLOOR = 12.0
OTHER_DIGEST = "d9" * 32
FLOORED = msgspec.structs.replace(
    CATALOGUE,
    models=tuple(
        msgspec.structs.replace(model, speed_floors={"4": FLOOR} if model.name == "small" else {})
        for model in CATALOGUE.models
    ),
)
BOUNDS: dict[str, Any] = {
    "proof_ms": HOUR_MS,
    "challenge_lead_ms": 20 * MINUTE_MS,
    "challenge_retry_ms": 4 * MINUTE_MS,
    "challenge_again_ms": MINUTE_MS,
}
BEAT_MS = 10 * SECOND_MS
LIMIT = 100

Behaviour = Callable[["Scene", str], None]


class Scene(World):
    """Nodes that beat, and do with each unit as their behaviour says. `posed` holds when each challenge was."""

    def __init__(self, *, catalogue: Catalogue = FLOORED, **changes: Any) -> None:
        self.behaviours: dict[int, Behaviour] = {}
        self.paused: set[int] = set()
        self.silent: set[int] = set()
        self.posed: list[tuple[int, int]] = []
        self.credited: dict[int, list[int]] = {}
        self._seen = 0
        super().__init__(catalogue=catalogue, **(BOUNDS | changes))
        self.fund()
        self.issue_key()

    def join(self, node_id: int, behave: Behaviour | None = None, *, tier: int = 4, **fields: Any) -> None:
        self.behaviours[node_id] = behave or answers(60)
        answer = self.attach(node_id, tier=tier, **fields)
        assert answer is None, answer

    def live(self, milliseconds: int) -> None:
        """Lets time pass, with heartbeats, the coordinator's challenges, and what the nodes make of their units."""
        end = self.now + milliseconds
        while self.now < end:
            self.pass_time(min(BEAT_MS, end - self.now))
            self.handle()

    def pass_time(self, milliseconds: int) -> None:
        end = self.now + milliseconds
        while self.now < end:
            for node_id in self.behaviours:
                if node_id not in self.silent:
                    self.beat(node_id)
            self.advance(min(BEAT_MS, end - self.now))

    def live_until(self, reached: Callable[[], bool], *, at_most: int = 3 * HOUR_MS) -> int:
        """Gives when that was."""
        end = self.now + at_most
        while not reached():
            assert self.now < end, "it never came to that"
            self.live(BEAT_MS)
        return self.now

    def beat(self, node_id: int) -> None:
        answer = self.heartbeat(node_id, paused=node_id in self.paused)
        assert isinstance(answer, effects.SlotCredited), answer
        if answer.credited:
            self.credited.setdefault(node_id, []).append(self.now)
            assert not self.benched(node_id), "a benched node is credited"

    def handle(self) -> None:
        while self._seen < len(self.effects):
            effect = self.effects[self._seen]
            self._seen += 1
            if isinstance(effect, effects.PoseChallenge):
                self.posed.append((effect.node_id, self.now))
                self.pose(effect)
            elif isinstance(effect, effects.Offer) and effect.attempt_id in self.offers and not effect.is_audit:
                self.behaviours[effect.node_id](self, effect.attempt_id)

    def pose(self, effect: effects.PoseChallenge) -> effects.Answer:
        return self.step(challenge(effect.node_id, model=effect.model, tokens=effect.tokens))

    # Looking at it --------

    def trust(self, node_id: int = 1) -> NodeTrustRow:
        row = self.tables["node_trust"][(str(node_id),)]
        assert isinstance(row, NodeTrustRow)
        return row

    def benched(self, node_id: int = 1) -> str:
        """Why, or nothing."""
        reason = self.engine.notice(node_id).benched
        assert self.engine.pool.nodes[node_id].benched == bool(reason)
        return reason

    def notice(self, node_id: int = 1) -> Notice:
        return self.engine.notice(node_id)

    def challenges(self) -> list[RequestRow]:
        return [row for row in self.rows(RequestRow) if row.account == challenges.ACCOUNT]


def challenge(node_id: int, *, model: str = "small", tokens: int = 64) -> events.Admit:
    return events.Admit(
        account=challenges.ACCOUNT,
        key_id="",
        workload_class="ai.inference",
        kind="chat",
        model=model,
        prompt_bytes=80,
        max_tokens=tokens,
        only_node=node_id,
    )


def answers(tokens_per_second: float, *, tokens: int = 64) -> Behaviour:
    def behave(scene: Scene, attempt_id: str) -> None:
        scene.acknowledge(attempt_id)
        scene.pass_time(round(tokens * 1000 / tokens_per_second))
        scene.complete(attempt_id, completion_tokens=tokens)

    return behave


def returns(outcome: str, *, acknowledges: bool = True, **fields: Any) -> Behaviour:
    def behave(scene: Scene, attempt_id: str) -> None:
        if acknowledges:
            scene.acknowledge(attempt_id)
        scene.returned(attempt_id, outcome, **fields)

    return behave


def ignores(scene: Scene, attempt_id: str) -> None:
    """Only its heartbeats come."""


def overruns(scene: Scene, attempt_id: str) -> None:
    scene.acknowledge(attempt_id)


DECLINES = returns("declined", acknowledges=False, code="node.busy")
REJECTED = returns("rejected", code="poe_mismatch", message="not its hash")
BREAKS = returns("failed", code="node.runtime_failed")


def scene_of(behave: Behaviour | None = None, **changes: Any) -> Scene:
    scene = Scene(**changes)
    scene.join(1, behave)
    return scene


# --- When a node is challenged


def first_challenges(seeds: Iterable[int]) -> list[int]:
    """How long after its attach a new idle node is challenged, in several worlds."""
    found: list[int] = []
    for seed in seeds:
        scene = scene_of(seed=seed)
        scene.live_until(lambda scene=scene: bool(scene.posed))
        found.append(scene.posed[0][1] - START_MS)
    return found


def test_a_new_node_is_challenged_at_a_moment_it_cannot_foresee() -> None:
    after = first_challenges(range(12))
    assert len(set(after)) > 8, "the moment is the same each time"
    assert max(after) <= BOUNDS["challenge_lead_ms"] + 2 * BEAT_MS
    assert min(after) < BOUNDS["challenge_lead_ms"] / 3 < max(after)


def test_a_node_that_met_its_floor_is_left_alone_until_its_proof_is_about_to_end() -> None:
    for seed in range(4):
        scene = scene_of(seed=seed)
        scene.live_until(lambda scene=scene: len(scene.posed) == 2)
        first, second = (at for _, at in scene.posed)
        assert HOUR_MS - BOUNDS["challenge_lead_ms"] <= second - first <= HOUR_MS + 2 * BEAT_MS
        assert not scene.benched()


def test_no_floor_no_challenge() -> None:
    for tier, digests in ((1, (DIGEST,)), (3, (DIGEST,)), (4, (BIG_DIGEST,))):
        scene = Scene()
        scene.join(1, tier=tier, digests=digests)
        scene.live(3 * HOUR_MS)
        assert scene.posed == [] and scene.rows(NodeTrustRow) == []
        assert scene.notice().prove_until == 0 and scene.notice().floor == ""


def test_the_tier_is_that_of_the_registration_whatever_the_machine_could_do() -> None:
    scene = Scene()
    scene.register(1, tier=1)
    scene.join(1, tier=4)
    assert scene.notice().prove_until == 0
    scene.register(1, tier=4)
    assert scene.notice().prove_until == scene.now + HOUR_MS
    assert scene.notice().floor == "tokens per second: 12 of md1"


def test_a_model_with_a_floor_is_what_is_asked_for() -> None:
    for seed in range(6):
        scene = Scene(seed=seed)
        scene.join(1, digests=(BIG_DIGEST, DIGEST))
        scene.live_until(lambda scene=scene: bool(scene.posed))
        assert [row.model for row in scene.challenges()] == ["small"]


def test_a_busy_node_and_a_paused_one_are_not_challenged() -> None:
    scene = scene_of(overruns)
    scene.ask(deadline_ms=HOUR_MS)
    scene.handle()
    scene.live(40 * MINUTE_MS)
    assert scene.posed == []

    scene = scene_of()
    scene.paused.add(1)
    scene.live(40 * MINUTE_MS)
    assert scene.posed == [] and not scene.benched()
    scene.paused.clear()
    scene.live(2 * BOUNDS["challenge_retry_ms"])
    assert len(scene.posed) == 1 and scene.trust().proven_at


def test_challenges_can_be_switched_off() -> None:
    scene = scene_of(ignores, challenges=False)
    for _ in range(4):
        scene.ask(queue_ms=0)
        scene.handle()
        scene.live(30 * SECOND_MS)
    scene.live(2 * HOUR_MS)
    assert scene.posed == [] and not scene.benched()


# --- What proves a node


def test_an_answer_at_the_floor_proves_the_node_and_one_below_does_not() -> None:
    for speed, proven in ((FLOOR, True), (FLOOR - 0.1, False)):
        scene = scene_of(answers(speed))
        scene.live_until(lambda scene=scene: bool(scene.posed))
        assert (scene.trust().proven_at > 0) == proven
        assert scene.notice().prove_until == (scene.trust().proven_at or scene.trust().first_attached_at) + HOUR_MS


def test_paid_work_proves_a_node_as_well() -> None:
    scene = scene_of(answers(FLOOR))
    scene.live(30 * SECOND_MS)
    scene.ask()
    scene.handle()
    assert scene.trust().proven_at == scene.now
    scene.live(30 * MINUTE_MS)
    assert scene.posed == [], "it has just shown what it can"


def test_paid_work_below_the_floor_is_no_failure() -> None:
    scene = scene_of(answers(3.1))
    for _ in range(5):
        scene.ask()
        scene.handle()
    assert not scene.benched() and scene.trust().proven_at == 0


def test_tokens_count_as_they_are_charged_not_as_the_node_counts_them() -> None:
    scene = scene_of(overruns)
    request_id = scene.ask(max_tokens=64)
    scene.handle()
    scene.advance(20 * SECOND_MS)
    attempt_id = scene.attempt_of(request_id)
    scene.complete(attempt_id, completion_tokens=1000)
    assert scene.row(request_id).completion_tokens == 64
    assert scene.trust().proven_at == 0, "64 tokens in 20 s are 3.2 a second"


def test_an_answer_too_short_to_be_measured_shows_nothing_and_is_no_failure() -> None:
    scene = scene_of(answers(100, tokens=challenges.MEASURABLE_TOKENS - 1))
    scene.live_until(lambda: len(scene.posed) >= 4)
    assert not scene.benched() and scene.trust().proven_at == 0
    scene.live_until(lambda: bool(scene.benched()))
    assert scene.benched() == "proof_expired"


def test_what_is_written_of_proofs_stays_little() -> None:
    scene = scene_of(answers(1000))
    scene.ask()
    scene.handle()
    first = scene.trust().proven_at
    for _ in range(20):
        scene.ask()
        scene.handle()
    assert scene.trust().proven_at == first
    scene.live(HOUR_MS // challenges.PROOFS_KEPT)
    scene.ask()
    scene.handle()
    assert scene.trust().proven_at == scene.now


class Unchecked(Scene):
    """For hundreds of requests: checking all of them after each step takes a minute."""

    def check(self) -> None:
        pass


def work_through(scene: Scene, *, slots: int) -> None:
    """Node 1 answers what it has, paid work with two words; more waits for it all the time."""
    while scene.engine.requests_open < 2 * slots + 1:
        scene.ask(max_tokens=64, queue_ms=HOUR_MS)
    running = [each for request in scene.engine.requests.values() for each in request.attempts if each.open]
    for attempt in running:
        scene.acknowledge(attempt.attempt_id)
    scene.pass_time(4 * SECOND_MS)
    for attempt in running:
        ours = scene.row(attempt.request_id).account == challenges.ACCOUNT
        scene.complete(attempt.attempt_id, completion_tokens=64 if ours else 2)


@pytest.mark.parametrize("slots", [1, 4])
def test_a_node_that_is_busy_with_short_answers_is_given_the_time_to_show_its_speed(slots: int) -> None:
    """However much waits for it: whoever sends it nothing but short work cannot have it benched."""
    scene = Unchecked(proof_ms=4 * MINUTE_MS, challenge_lead_ms=2 * MINUTE_MS, challenge_retry_ms=MINUTE_MS)
    scene.join(1, overruns, slots=slots)
    end = scene.now + 10 * MINUTE_MS
    while scene.now < end:
        work_through(scene, slots=slots)
        scene.handle()
        assert not scene.benched()
    assert 2 <= len(scene.challenges()) <= 4
    assert len(scene.rows(RecordRow)) > 120 * slots, "and it is at work nearly all the time"


def held_scene(seed: int = 1) -> tuple[Scene, str, str]:
    """A node that runs two long requests, and is held free for its challenge; and their ids."""
    scene = Scene(acknowledge_ms=MINUTE_MS, seed=seed)
    scene.join(1, overruns, slots=2)
    scene.paused.add(1)
    scene.live(15 * MINUTE_MS)
    scene.paused.clear()
    scene.beat(1)
    both = [scene.ask(deadline_ms=HOUR_MS, max_tokens=1000) for _ in range(2)]
    scene.handle()
    scene.live_until(lambda: scene.engine.pool.nodes[1].held)
    return scene, both[0], both[1]


def test_a_node_is_held_free_for_a_challenge_no_longer_than_it_takes() -> None:
    in_time = 0
    for seed in range(6):
        scene, one, _ = held_scene(seed)
        since = scene.now
        assert since >= START_MS + HOUR_MS - BOUNDS["challenge_retry_ms"]
        scene.complete(scene.attempt_of(one), completion_tokens=2)
        waiting = scene.ask(queue_ms=HOUR_MS, deadline_ms=HOUR_MS)
        scene.handle()
        assert waiting in scene.engine.queue and scene.posed == [], "it is at work still"
        scene.live_until(lambda scene=scene: not scene.engine.pool.nodes[1].held)
        assert scene.now - since <= BOUNDS["challenge_retry_ms"] + BEAT_MS
        assert scene.node_of(waiting) == 1
        in_time += not scene.benched()
        scene.live_until(lambda scene=scene: bool(scene.benched()))
        assert scene.benched() == "proof_expired"
    assert in_time, "each time the bench had its work given on"


def test_a_node_that_is_held_free_is_challenged_as_soon_as_it_is_done() -> None:
    scene, one, other = held_scene()
    scene.complete(scene.attempt_of(one), completion_tokens=2)
    waiting = scene.ask(queue_ms=HOUR_MS)
    scene.behaviours[1] = answers(30)
    scene.complete(scene.attempt_of(other), completion_tokens=2)
    scene.handle()
    assert len(scene.posed) == 1 and scene.trust().proven_at
    assert waiting not in scene.engine.queue


def test_a_node_gets_nothing_beside_a_challenge_that_would_slow_it_down() -> None:
    """Else whoever keeps a queue full can have others benched that are as fast as they must be."""
    scene = Scene()
    scene.join(1, overruns, slots=4)
    scene.live_until(lambda: bool(scene.posed))
    (challenged,) = scene.challenges()
    waiting = [scene.ask(queue_ms=HOUR_MS) for _ in range(6)]
    scene.handle()
    node = scene.engine.pool.nodes[1]
    assert len(node.reserved) == 1
    scene.pass_time(4 * SECOND_MS)
    scene.complete(scene.attempt_of(challenged.request_id), completion_tokens=64)
    assert scene.trust().proven_at == scene.now
    assert len(node.reserved) == 4
    assert sum(request_id in scene.engine.queue for request_id in waiting) == 2


@pytest.mark.parametrize("end", ["declined", "failed", "gone"])
def test_however_a_challenge_ends_its_node_is_given_work_again(end: str) -> None:
    scene = Scene()
    scene.join(1, overruns, slots=2)
    scene.live_until(lambda: bool(scene.posed))
    (challenged,) = scene.challenges()
    waiting = scene.ask(queue_ms=HOUR_MS)
    assert waiting in scene.engine.queue
    if end == "gone":
        scene.attach(1, tier=4, slots=2, run_id="another")
    else:
        scene.returned(scene.attempt_of(challenged.request_id), end, code="node.busy")
    assert scene.node_of(waiting) == 1


def test_paid_work_that_meets_the_floor_ends_the_wait_for_a_challenge() -> None:
    scene, one, _ = held_scene()
    scene.request(one).attempts[-1].started_at = scene.now - 10 * SECOND_MS
    scene.complete(scene.attempt_of(one), completion_tokens=1000)
    assert not scene.engine.pool.nodes[1].held and scene.trust().proven_at == scene.now
    assert scene.node_of(scene.ask()) == 1


# --- What benches it


def test_a_slow_answer_is_asked_for_once_more_before_it_counts() -> None:
    scene = scene_of(answers(3.1))
    scene.live_until(lambda: bool(scene.posed))
    assert not scene.benched(), "its model may not have been loaded"
    scene.live_until(lambda: len(scene.posed) == 2)
    again = scene.posed[1][1] - scene.posed[0][1]
    assert again <= 64_000 / 3.1 + BOUNDS["challenge_again_ms"] + 2 * BEAT_MS
    assert scene.benched() == "too_slow: 3.1 of 12 tokens per second"
    assert scene.trust().benched_at == scene.now
    assert scene.logged("node.benched") == [{"node_id": "1", "reason": scene.benched()}]


def test_a_node_that_was_slow_only_to_load_its_model_passes() -> None:
    scene = scene_of(answers(3.1))
    scene.live_until(lambda: bool(scene.posed))
    scene.behaviours[1] = answers(30)
    scene.live_until(lambda: len(scene.posed) == 2)
    assert not scene.benched() and scene.trust().proven_at == scene.now
    # And the slow one before it is forgotten.
    scene.behaviours[1] = answers(3.1)
    scene.live_until(lambda: len(scene.posed) == 3)
    assert not scene.benched()


@pytest.mark.parametrize(
    ("behave", "reason"),
    [
        (BREAKS, "failed: node.runtime_failed"),
        (REJECTED, "rejected: poe_mismatch"),
        (overruns, "missed: node.deadline_exceeded"),
        (returns("failed", code="node.deadline_exceeded"), "missed: node.deadline_exceeded"),
    ],
)
def test_a_failed_challenge_benches_at_once(behave: Behaviour, reason: str) -> None:
    scene = scene_of(behave)
    scene.live_until(lambda: bool(scene.posed))
    scene.live(3 * MINUTE_MS)
    assert scene.benched() == reason
    assert scene.challenges()[0].state == "failed"


@pytest.mark.parametrize("behave", [BREAKS, overruns, answers(3.1), DECLINES])
def test_paid_work_that_ends_so_benches_nobody(behave: Behaviour) -> None:
    scene = scene_of(behave, catalogue=CATALOGUE)
    for _ in range(4):
        scene.ask(queue_ms=0)
        scene.handle()
        scene.live(3 * MINUTE_MS)
    assert not scene.benched()


def test_declining_is_no_fault_and_proves_nothing() -> None:
    scene = scene_of(DECLINES)
    ends_at = START_MS + HOUR_MS
    scene.live(HOUR_MS - MINUTE_MS)
    assert not scene.benched() and scene.notice().strikes == 0
    moments = [at for _, at in scene.posed]
    retry_ms = BOUNDS["challenge_retry_ms"]
    assert len(moments) > 5
    assert all(retry_ms / 2 <= b - a <= retry_ms + 2 * BEAT_MS for a, b in pairwise(moments))
    scene.live_until(lambda: bool(scene.benched()))
    assert scene.benched() == "proof_expired" and scene.trust().benched_at == ends_at


def test_three_units_running_that_are_not_acknowledged_bench_a_node_without_any_floor_too() -> None:
    scene = scene_of(ignores, catalogue=CATALOGUE)
    for strikes in (1, 2, 3):
        assert not scene.benched()
        scene.ask(queue_ms=0)
        scene.live(12 * SECOND_MS)
        assert scene.notice().strikes == strikes == scene.trust().strikes
    assert scene.benched() == "not_acknowledged: 3 units running"


@pytest.mark.parametrize("between", [answers(30), DECLINES])
def test_whatever_it_answers_in_time_begins_the_count_anew(between: Behaviour) -> None:
    scene = scene_of(ignores, catalogue=CATALOGUE)
    for _ in range(3):
        for _ in range(2):
            scene.ask(queue_ms=0)
            scene.live(12 * SECOND_MS)
        assert scene.notice().strikes == 2
        scene.behaviours[1] = between
        scene.ask(queue_ms=0)
        scene.handle()
        assert scene.notice().strikes == 0
        scene.behaviours[1] = ignores
    assert not scene.benched()


def test_a_challenge_that_is_not_acknowledged_counts_as_such_a_unit() -> None:
    scene = scene_of(ignores)
    scene.live_until(lambda: len(scene.posed) == 2)
    scene.live(15 * SECOND_MS)
    assert scene.notice().strikes == 2 and not scene.benched()
    scene.live_until(lambda: len(scene.posed) == 3)
    scene.live(15 * SECOND_MS)
    assert scene.benched() == "not_acknowledged: 3 units running"


def test_a_node_with_nothing_on_offer_does_not_get_round_the_floors_of_its_tier() -> None:
    scene = Scene()
    scene.join(1, digests=(OTHER_DIGEST,))
    scene.live(2 * HOUR_MS)
    assert scene.posed == [] and scene.benched() == "proof_expired"
    scene.now += 1
    scene.join(1, run_id="with a model")
    assert scene.benched() == "proof_expired", "a new session washes nothing off"
    scene.live(2 * BOUNDS["challenge_retry_ms"])
    assert not scene.benched()


def test_an_embedding_model_has_no_speed_to_show() -> None:
    scene = Scene()
    scene.join(1, features=("embeddings",))
    scene.live(2 * HOUR_MS)
    assert scene.posed == [] and not scene.benched()


@pytest.mark.parametrize(("completes", "reason"), [(True, ""), (False, "proof_expired")])
def test_a_challenge_that_is_under_way_when_the_proof_ends_decides(completes: bool, reason: str) -> None:
    scene = scene_of(overruns)
    scene.paused.add(1)
    scene.live(HOUR_MS - MINUTE_MS)
    scene.paused.clear()
    scene.beat(1)
    scene.step(challenge(1, tokens=1000))
    (attempt_id,) = scene.offers
    scene.acknowledge(attempt_id)
    scene.pass_time(61 * SECOND_MS)
    assert not scene.benched() and scene.notice().prove_until < scene.now
    if completes:
        scene.complete(attempt_id, completion_tokens=1000)
    else:
        DECLINES(scene, attempt_id)
    assert scene.benched() == reason


# --- On the bench


def benched_scene(**changes: Any) -> Scene:
    scene = scene_of(BREAKS, **changes)
    scene.live_until(lambda: bool(scene.benched()))
    return scene


def test_who_is_benched_is_not_credited_and_no_receipt_brings_it_back() -> None:
    scene = benched_scene()
    benched_at, counted = scene.now, scene.engine.uptime.counted(1, scene.now // HOUR_MS)
    slot = scene.now // SLOT_MS
    for _ in range(6):
        scene.beat(1)
        scene.advance(BEAT_MS)
    assert scene.engine.uptime.counted(1, benched_at // HOUR_MS) == counted
    receipts = tuple(range(slot + 1, scene.now // SLOT_MS + 1))
    assert scene.step(events.UptimeRestored(node_id=1, slots=receipts)) == effects.SlotsRestored(credited=0)
    # Not even those that we forgot in a crash of ours.
    scene.restart()
    assert scene.step(events.UptimeRestored(node_id=1, slots=receipts)) == effects.SlotsRestored(credited=0)

    scene.behaviours[1] = answers(30)
    scene.live_until(lambda: not scene.benched())
    assert scene.step(events.UptimeRestored(node_id=1, slots=receipts)) == effects.SlotsRestored(credited=0)
    scene.restart()
    assert scene.step(events.UptimeRestored(node_id=1, slots=receipts)) == effects.SlotsRestored(credited=0)
    before = len(scene.credited[1])
    scene.live(MINUTE_MS)
    assert len(scene.credited[1]) >= before + 5, "and now it counts again"


def test_what_was_not_credited_is_durable_as_soon_as_the_node_is_back() -> None:
    scene = scene_of(BREAKS)
    scene.advance(MINUTE_MS)
    scene.now += SLOT_MS - scene.now % SLOT_MS
    scene.beat(1)
    scene.step(challenge(1))
    scene.handle()
    assert scene.benched()
    scene.advance(SLOT_MS)
    scene.beat(1)
    slot = scene.now // SLOT_MS
    scene.behaviours[1] = answers(1000)
    scene.ask()
    scene.handle()
    assert not scene.benched() and scene.now // SLOT_MS == slot
    scene.restart()
    assert scene.step(events.UptimeRestored(node_id=1, slots=(slot,))) == effects.SlotsRestored(credited=0)


def test_a_slot_that_was_credited_before_the_bench_stays_credited() -> None:
    scene = scene_of(BREAKS)
    scene.now += SLOT_MS - scene.now % SLOT_MS
    scene.beat(1)
    scene.step(challenge(1))
    (attempt_id,) = scene.offers
    scene.returned(attempt_id, "failed", code="node.runtime_failed")
    assert scene.benched()
    scene.beat(1)
    assert scene.engine.uptime.counted(1, scene.now // HOUR_MS) == 1


def test_the_chain_is_told_that_a_benched_node_is_offline() -> None:
    scene = benched_scene()
    scene.engine.liveness.apply(NodeWentOnline(node_id=1))
    report = scene.engine.liveness_report(LIMIT)
    assert report is not None
    assert [(change.node_id, change.online, change.voided_slots) for change in report.changes] == [(1, False, 0)]

    scene.behaviours[1] = answers(30)
    scene.live_until(lambda: not scene.benched())
    scene.live(MINUTE_MS)
    report = scene.engine.liveness_report(LIMIT)
    assert report is not None and report.changes == ()


def test_a_benched_node_stands_aside_and_serves_what_nobody_else_can() -> None:
    scene = Scene(catalogue=CATALOGUE)
    scene.join(1, ignores)
    for _ in range(3):
        scene.ask(queue_ms=0)
        scene.live(12 * SECOND_MS)
    scene.live(MINUTE_MS)
    assert scene.benched() and not scene.engine.requests
    alone = scene.ask()
    assert scene.node_of(alone) == 1, "penalties never empty the pool"
    scene.step(events.Cancel(request_id=alone, charged=False, reason="x"))
    scene.join(2, overruns)
    assert scene.node_of(scene.ask()) == 2


def test_what_a_bench_leaves_waiting_goes_to_the_least_bad() -> None:
    """The last good node is benched while something waits for it; benched ones with free slots take it up."""
    scene = Scene(catalogue=CATALOGUE)
    scene.join(1, ignores, slots=2)
    for _ in range(3):
        scene.ask(queue_ms=0)
        scene.live(12 * SECOND_MS)
    scene.live(MINUTE_MS)
    assert scene.benched() and not scene.engine.requests
    scene.behaviours[1] = overruns
    scene.join(2, ignores)
    scene.engine.trust.of(2).strikes = 2
    last, *waiting = [scene.ask(queue_ms=HOUR_MS) for _ in range(3)]
    assert scene.node_of(last) == 2 and all(request_id in scene.engine.queue for request_id in waiting)
    scene.live(11 * SECOND_MS)
    assert scene.benched(2)
    assert sorted(map(scene.node_of, (last, *waiting))) == [1, 1, 2]


def test_a_benched_node_is_less_bad_than_one_that_was_removed() -> None:
    scene = Scene(catalogue=CATALOGUE)
    scene.join(1, slots=2)
    scene.join(2, REJECTED, slots=2)
    scene.engine.pool.nodes[2].benched = True
    for _ in range(2):
        scene.engine.pool.nodes[2].rejections.append(scene.now)
    scene.engine.pool.nodes[1].removed_until = scene.now + HOUR_MS
    for node in scene.engine.pool.nodes.values():
        scene.engine.pool.refresh(node)
    assert scene.node_of(scene.ask()) == 2


def test_a_good_node_that_let_a_unit_pass_goes_before_a_benched_one() -> None:
    scene = Scene(catalogue=CATALOGUE)
    scene.join(1, ignores)
    for _ in range(3):
        scene.ask(queue_ms=0)
        scene.live(12 * SECOND_MS)
    scene.live(MINUTE_MS)
    assert scene.benched()
    scene.join(2, ignores)
    request_id = scene.ask()
    scene.live(11 * SECOND_MS)
    assert [attempt.node_id for attempt in scene.request(request_id).attempts] == [2, 2]


def test_a_benched_node_is_asked_again_and_comes_back_when_it_passes() -> None:
    scene = benched_scene()
    scene.live(2 * HOUR_MS)
    moments = [at for _, at in scene.posed]
    retry_ms = BOUNDS["challenge_retry_ms"]
    assert all(retry_ms / 2 <= b - a <= retry_ms + 2 * BEAT_MS for a, b in pairwise(moments))
    scene.behaviours[1] = answers(30)
    back_at = scene.live_until(lambda: not scene.benched())
    assert back_at - moments[-1] <= retry_ms + 64_000 / 30 + 3 * BEAT_MS
    assert scene.logged("node.unbenched") == [{"node_id": "1"}]
    assert (scene.trust().benched_at, scene.trust().bench_reason) == (0, "")
    assert scene.engine.pool.penalised() == []
    # And it is held to its floor again.
    scene.behaviours[1] = DECLINES
    scene.live_until(lambda: bool(scene.benched()))
    assert scene.benched() == "proof_expired" and HOUR_MS <= scene.now - back_at < HOUR_MS + 2 * BEAT_MS


def test_paid_work_at_the_floor_brings_a_node_back_too() -> None:
    scene = benched_scene()
    scene.behaviours[1] = answers(30)
    scene.ask()
    scene.handle()
    assert not scene.benched()


def test_a_node_without_a_floor_comes_back_by_answering_a_challenge() -> None:
    scene = scene_of(ignores, catalogue=CATALOGUE)
    for _ in range(3):
        scene.ask(queue_ms=0)
        scene.live(12 * SECOND_MS)
    assert scene.benched()
    scene.behaviours[1] = answers(1)
    scene.live_until(lambda: bool(scene.posed))
    scene.live(MINUTE_MS)
    assert not scene.benched() and scene.notice().strikes == 0
    posed = len(scene.posed)
    scene.live(HOUR_MS)
    assert len(scene.posed) == posed, "it need not prove anything more"


def test_who_is_benched_is_told_why_and_what_stands_against_it_otherwise() -> None:
    scene = benched_scene()
    assert scene.notice() == Notice(
        rate_percent=100,
        prove_until=scene.trust().first_attached_at + HOUR_MS,
        floor="tokens per second: 12 of md1",
        benched="failed: node.runtime_failed",
    )


# --- One window, once


def again_by_attaching(scene: Scene) -> None:
    scene.now += 1
    scene.join(1, scene.behaviours[1], run_id=f"run {scene.now}")


def again_by_going_off(scene: Scene) -> None:
    scene.silent.add(1)
    scene.live(2 * MINUTE_MS)
    scene.silent.clear()


def again_by_restart(scene: Scene) -> None:
    scene.restart()


def again_by_unregistering(scene: Scene) -> None:
    scene.step(events.RegistryChanged(removed=(1,)))
    scene.now += 1
    scene.step(events.RegistryChanged(registrations=(registration(1, tier=4),)))


@pytest.mark.parametrize(
    "again",
    [again_by_attaching, again_by_going_off, again_by_restart, again_by_unregistering],
    ids=lambda f: f.__name__,
)
def test_nothing_gives_a_node_that_never_proved_itself_a_second_window(again: Callable[[Scene], None]) -> None:
    scene = scene_of(DECLINES)
    for _ in range(5):
        scene.live(9 * MINUTE_MS)
        again(scene)
        assert not scene.benched()
    scene.live(START_MS + HOUR_MS - scene.now + BEAT_MS)
    assert scene.benched() == "proof_expired"
    for _ in range(3):
        again(scene)
        assert scene.benched() == "proof_expired"
        before = len(scene.credited[1])
        scene.live(10 * MINUTE_MS)
        assert len(scene.credited[1]) == before


def test_neither_does_a_removal() -> None:
    scene = scene_of(REJECTED, removal_ms=HOUR_MS)
    for _ in range(3):
        request_id = scene.ask(queue_ms=0)
        scene.handle()
        if request_id in scene.engine.requests:
            scene.step(events.Cancel(request_id=request_id, charged=False, reason="x"))
    scene.behaviours[1] = DECLINES
    assert scene.notice().removed_until == scene.now + HOUR_MS
    scene.live(2 * HOUR_MS)
    assert scene.logged("node.readmitted") and scene.benched() == "proof_expired"


def test_a_removed_node_is_not_challenged_until_it_is_back() -> None:
    scene = scene_of(REJECTED, removal_ms=30 * MINUTE_MS)
    for _ in range(3):
        request_id = scene.ask(queue_ms=0)
        scene.handle()
        if request_id in scene.engine.requests:
            scene.step(events.Cancel(request_id=request_id, charged=False, reason="x"))
    scene.behaviours[1] = answers(30)
    scene.live(29 * MINUTE_MS)
    assert scene.posed == []
    scene.live(2 * MINUTE_MS + BOUNDS["challenge_lead_ms"])
    assert len(scene.posed) == 1 and scene.logged("node.benched") == []


def test_a_node_that_was_away_when_its_proof_ended_is_asked_before_it_counts() -> None:
    scene = scene_of()
    scene.live_until(lambda: bool(scene.posed))
    scene.silent.add(1)
    scene.live(3 * HOUR_MS)
    assert scene.benched() == "proof_expired"
    scene.silent.clear()
    back_at, challenges_before = scene.now, len(scene.posed)
    scene.live_until(lambda: not scene.benched())
    assert len(scene.posed) == challenges_before + 1
    assert scene.now - back_at <= BOUNDS["challenge_retry_ms"] + MINUTE_MS


def test_nobody_is_benched_for_a_proof_that_ended_while_we_were_away() -> None:
    scene = scene_of()
    scene.live_until(lambda: bool(scene.posed))
    scene.now += 5 * HOUR_MS
    scene.restart()
    scene.live(BEAT_MS)
    assert not scene.benched()
    scene.live(BOUNDS["challenge_lead_ms"] + MINUTE_MS)
    assert not scene.benched() and len(scene.posed) == 2

    lazy = scene_of()
    lazy.live_until(lambda: bool(lazy.posed))
    lazy.behaviours[1] = DECLINES
    lazy.now += 5 * HOUR_MS
    lazy.restart()
    lazy.live(BOUNDS["challenge_lead_ms"] + MINUTE_MS)
    assert lazy.benched() == "proof_expired"


def test_floors_that_come_with_a_new_catalogue_begin_a_window_for_those_who_are_there() -> None:
    scene = Scene(catalogue=CATALOGUE)
    scene.join(1)
    scene.live(3 * HOUR_MS)
    scene.catalogue = FLOORED
    scene.restart()
    assert scene.notice().prove_until == scene.now + HOUR_MS and not scene.benched()


def test_the_bench_outlives_a_restart() -> None:
    scene = benched_scene()
    reason = scene.benched()
    scene.restart()
    assert scene.benched() == reason
    assert scene.engine.pool.penalised()


def test_a_challenge_that_lived_through_a_restart_shows_nothing() -> None:
    for behave in (answers(30), answers(1)):
        scene = scene_of(overruns)
        scene.live_until(lambda scene=scene: bool(scene.posed))
        (request,) = scene.challenges()
        attempt_id = scene.attempt_of(request.request_id)
        scene.restart()
        assert scene.request(request.request_id).only_node == 1
        scene.step(challenge(1))
        assert len(scene.challenges()) == 1, "one at a time"
        scene.advance(5 * SECOND_MS)
        scene.offers[attempt_id] = next(
            effect for effect in scene.effects if isinstance(effect, effects.Offer) and effect.attempt_id == attempt_id
        )
        scene.complete(attempt_id, completion_tokens=64)
        assert scene.trust().proven_at == 0 and not scene.benched()
        scene.behaviours[1] = behave
        scene.live_until(lambda scene=scene: len(scene.posed) >= 2)


# --- What a challenge is


def test_a_challenge_costs_nobody_anything_and_stands_in_the_chain_like_all_work() -> None:
    scene = scene_of(answers(30), audited=True)
    scene.join(2, answers(30), tier=1)
    before = len(scene.rows(TransferRow))
    scene.live_until(lambda: bool(scene.posed))
    (row,) = scene.challenges()
    assert (row.state, row.hold_wei, row.charge_wei, row.key_id) == ("completed", "0", "0", "")
    assert (row.prompt_price_wei, row.completion_price_wei) == ("0", "0")
    assert len(scene.rows(TransferRow)) == before
    assert [record.request_id for record in scene.rows(RecordRow)] == [row.request_id]
    (audit,) = scene.rows(AuditRow)
    assert (audit.request_id, audit.node_id) == (row.request_id, "1")


def test_a_node_is_shown_nothing_of_a_challenge_that_it_is_not_shown_of_a_request() -> None:
    scene = scene_of(overruns)
    paid = scene.ask(max_tokens=64)
    (one,) = scene.offers.values()
    scene.step(events.Cancel(request_id=paid, charged=False, reason="x"))
    scene.step(challenge(1))
    (other,) = scene.offers.values()
    same = dict.fromkeys(("attempt_id", "request_id"), "")
    assert msgspec.structs.replace(one, **same) == msgspec.structs.replace(other, **same)


@pytest.mark.parametrize("behave", [DECLINES, BREAKS, REJECTED, overruns, ignores])
def test_a_challenge_never_goes_to_another_node(behave: Behaviour) -> None:
    scene = scene_of(behave)
    scene.join(2, answers(30), tier=1)
    scene.step(challenge(1))
    scene.handle()
    scene.live(3 * MINUTE_MS)
    offered = {
        effect.node_id
        for effect in scene.effects
        if isinstance(effect, effects.Offer) and effect.request_id == scene.challenges()[0].request_id
    }
    assert offered == {1} and scene.challenges()[0].state == "failed"


def test_a_node_that_cannot_take_a_challenge_now_is_not_given_one() -> None:
    scene = scene_of(overruns)
    scene.join(2)
    scene.paused.add(2)
    scene.beat(2)
    scene.step(challenge(1))
    for node_id in (1, 2, 3):
        answer = scene.step(challenge(node_id))
        assert isinstance(answer, effects.Refused) and answer.code == "overloaded", node_id
    assert len(scene.challenges()) == 1


def test_a_node_has_one_challenge_at_a_time_however_many_slots() -> None:
    scene = Scene()
    scene.join(1, overruns, slots=4)
    scene.step(challenge(1))
    answer = scene.step(challenge(1))
    assert isinstance(answer, effects.Refused) and answer.code == "overloaded"


def test_a_challenge_reaches_a_benched_node_beside_good_ones() -> None:
    scene = benched_scene()
    scene.join(2, answers(30), tier=1)
    scene.step(challenge(1))
    assert {offer.node_id for offer in scene.offers.values()} == {1}


def test_a_challenge_finds_room_like_any_request() -> None:
    scene = scene_of(overruns, open_requests_max=1)
    scene.join(2, overruns)
    scene.ask()
    free = 2 if scene.engine.pool.nodes[1].reserved else 1
    answer = scene.step(challenge(free))
    assert isinstance(answer, effects.Refused) and answer.code == "overloaded"


def test_nobody_gets_a_key_or_credits_for_the_coordinators_account() -> None:
    scene = Scene()
    with pytest.raises(AssertionError):
        scene.issue_key("key_2", account=challenges.ACCOUNT)
    answer = scene.step(events.Grant(grant_id="g", account=challenges.ACCOUNT, amount_wei=1))
    assert isinstance(answer, effects.Refused)


# --- The machine that only stakes


def test_a_cheap_machine_that_stakes_as_tier_4_and_only_heartbeats_earns_nothing_after_its_first_window() -> None:
    """With the bounds of a real network."""
    scene = Scene(
        proof_ms=6 * HOUR_MS,
        challenge_lead_ms=HOUR_MS,
        challenge_retry_ms=10 * MINUTE_MS,
        acknowledge_ms=10 * SECOND_MS,
    )
    scene.join(1, ignores)
    scene.live(MINUTE_MS)
    scene.engine.liveness.apply(NodeWentOnline(node_id=1))
    scene.live(6 * HOUR_MS)
    assert scene.benched().startswith("not_acknowledged: ")
    report = scene.engine.liveness_report(LIMIT)
    assert report is not None and [change.online for change in report.changes] == [False]
    last = scene.credited[1][-1]
    assert last - START_MS < 6 * HOUR_MS
    again_by_attaching(scene)
    scene.live(2 * HOUR_MS)
    again_by_restart(scene)
    scene.live(HOUR_MS)
    assert scene.credited[1][-1] == last
    assert scene.engine.uptime.counted(1, scene.now // HOUR_MS) == 0


def test_one_that_answers_as_slowly_as_it_is_earns_nothing_either() -> None:
    scene = scene_of(answers(2.0))
    scene.live(2 * HOUR_MS)
    assert scene.benched() == "too_slow: 2.0 of 12 tokens per second"
    last = scene.credited[1][-1]
    assert last - START_MS < BOUNDS["challenge_lead_ms"] + 5 * MINUTE_MS
    scene.live(HOUR_MS)
    assert scene.credited[1][-1] == last


# --- Whatever happens

BEHAVIOURS: tuple[Behaviour, ...] = (answers(30), answers(3), DECLINES, BREAKS, REJECTED, ignores, overruns)


TURNS = st.tuples(
    st.integers(1, 3), st.sampled_from(BEHAVIOURS), st.sampled_from(["live", "ask", "restart", "attach", "pause"])
)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.lists(TURNS, min_size=3, max_size=12))
def test_benched_nodes_are_never_credited_and_penalties_never_empty_the_pool(
    seed: int, turns: list[tuple[int, Behaviour, str]]
) -> None:
    scene = Scene(seed=seed, removal_ms=30 * MINUTE_MS)
    for node_id in (1, 2, 3):
        scene.join(node_id, tier=4 if node_id < 3 else 1)
    for node_id, behaviour, turn in turns:
        scene.behaviours[node_id] = behaviour
        if turn == "ask":
            scene.ask(queue_ms=MINUTE_MS)
            scene.handle()
        elif turn == "restart":
            scene.restart()
        elif turn == "attach":
            scene.now += 1
            scene.join(node_id, behaviour, tier=4 if node_id < 3 else 1, run_id=f"run {scene.now}")
        elif turn == "pause":
            scene.paused ^= {node_id}
        # `beat` asserts that nobody is credited on the bench.
        scene.live(12 * MINUTE_MS)
        served = [
            node
            for node in scene.engine.pool.nodes.values()
            if node.online and node.registered and not node.paused and node.slots_free > 0
        ]
        if served:
            request_id = scene.ask(queue_ms=0)
            assert scene.request(request_id).open_attempt is not None, "somebody could, and nobody was given it"
            scene.step(events.Cancel(request_id=request_id, charged=False, reason="x"))
