"""Whether a node counts as online: it acknowledges units in time, and has lately met the speed floor of its tier.

A stake and a heartbeat prove no machine. Where the catalogue names a floor for a model and the tier that a node is
registered for, the node must have met it within `proof_ms`, on paid work or on a *challenge*: a request like any other,
on the coordinator's own account, at a moment that the node cannot foresee. Its first window runs from when it first had
to; neither another session nor a removal opens a second one.

A node that fails is *benched*: it earns nothing, stands aside in the pool, and is asked again until it passes.
"""

from __future__ import annotations

from parallelix.engine import effects, events
from parallelix.engine.admission import Admission
from parallelix.engine.catalogue import TIERS
from parallelix.engine.effects import Refused
from parallelix.engine.entities import Asking, Attempt, Request
from parallelix.engine.lifecycle import AttemptState, RequestState
from parallelix.engine.pool import Need, Node
from parallelix.protocol.messages import ModelInfo, Notice

ACCOUNT = "parallelix:coordinator"
"""Whose requests challenges are. No key can be issued for it. They are priced at nothing: to pay oneself would only
make up credits."""
MEASURABLE_TOKENS = 8
"""A shorter answer measures latency, not speed."""
TEXT_MAX = 128
"""What a notice has room for."""
PROOFS_KEPT = 100
"""In the time that one holds, at most: a row for each result would be one too many."""
SLOW_ANSWERS_TO_FAIL = 2
"""Of an idle node the first challenge may have loaded the model; it is asked again while that is loaded."""


class Challenges(Admission):
    # Floors -----------------------------------------------------------------------------------------------------------

    def floor(self, digest: str, tier: int) -> float:
        """Tokens per second that a node of `tier` must reach with these weights; 0 where there is no floor."""
        return self._floors.get((digest, tier), 0.0)

    def _floored(self, node: Node) -> list[ModelInfo]:
        """The node's models that it can show its speed on."""
        return [model for model in node.models if _generates(model) and self.floor(model.digest, _tier(node)) > 0]

    def must_prove(self, node: Node) -> bool:
        """Whether a floor stands for the node. One that has nothing on offer cannot get round those of its tier."""
        if self._floored(node):
            return True
        return not any(model.digest in self._models_of_digest for model in node.models) and any(
            tier == _tier(node) for _, tier in self._floors
        )

    def prove_until(self, node: Node) -> int:
        """When the node's proof ends, Unix milliseconds; 0 while it need not prove anything."""
        trust = self.trust.known(node.node_id)
        if trust is None or not trust.first_attached_at or not self.must_prove(node):
            return 0
        ends_at = max(trust.first_attached_at, trust.proven_at) + self.settings.proof_ms
        return max(ends_at, self._asking_of(node.node_id).spared_until)

    def notice(self, node_id: int) -> Notice:
        """What the operator of an attached node is told with each heartbeat."""
        node, trust = self.pool.nodes[node_id], self.trust.known(node_id)
        rate_percent = self.trust.rate_percent(node_id) if self.settings.audits else 0
        if trust is None:
            return Notice(rate_percent=rate_percent, removed_until=node.removed_until)
        prove_until = self.prove_until(node)
        floors = [f"{self.floor(model.digest, _tier(node)):g} of {model.name}" for model in self._floored(node)]
        return Notice(
            rate_percent=rate_percent,
            audited=trust.audited,
            disagreed=trust.disagreed,
            strikes=trust.strikes,
            proven_at=trust.proven_at,
            prove_until=prove_until,
            floor=f"tokens per second: {' or '.join(floors)}"[:TEXT_MAX] if prove_until and floors else "",
            benched=trust.bench_reason if node.benched else "",
            removed_until=node.removed_until,
        )

    # What the layers above tell ---------------------------------------------------------------------------------------

    def _expect_proof(self, node: Node, *, restored: bool = False) -> None:
        """The node is there, or what is known of it has changed: begins its first window, and plans its challenge."""
        trust, asking = self.trust.of(node.node_id), self._asking_of(node.node_id)
        node.benched = bool(trust.benched_at) and self.settings.challenges
        if not self.settings.challenges:
            return
        if self.must_prove(node):
            if not trust.first_attached_at:
                trust.first_attached_at = self._now
                self.trust.changed(node.node_id)
            if restored and not trust.benched_at and self.prove_until(node) <= self._now:
                asking.spared_until = self._now + self.settings.challenge_lead_ms
            self._watch(node)
        if not asking.next_at and not asking.request_id:
            self._plan_challenge(node)

    def _took_up(self, node_id: int) -> None:
        """The node acknowledged a unit, or declined it, in time."""
        trust = self.trust.known(node_id)
        if trust is not None and trust.strikes:
            trust.strikes = 0
            self.trust.changed(node_id)

    def _let_pass(self, node_id: int) -> None:
        """The node did not acknowledge a unit in time."""
        trust = self.trust.of(node_id)
        trust.strikes += 1
        self.trust.changed(node_id)
        if trust.strikes >= self.settings.strikes_to_bench and self.settings.challenges:
            node = self.pool.nodes[node_id]
            self._bench(node, f"not_acknowledged: {trust.strikes} units running")
            if not self._asking_of(node_id).request_id:
                self._plan_challenge(node)

    def _shown_by(self, request: Request) -> None:
        """A request is over: takes in what it shows of its node's speed, and judges it where it was a challenge."""
        attempt = request.attempts[-1] if request.attempts else None
        if attempt is None:
            return
        node = self.pool.nodes[attempt.node_id]
        if self._meets_floor(request, attempt, node):
            self._prove(node)
        if request.only_node is not None:
            self._judge_challenge(request, attempt, node)

    # Challenges -------------------------------------------------------------------------------------------------------

    def _challenge_refusal(self, event: events.Admit, need: Need) -> Refused | None:
        """A challenge waits in no queue: the node is free for it now, or is asked another time."""
        assert event.only_node is not None and event.account == ACCOUNT and not event.key_id, event
        if self._asking_of(event.only_node).request_id or self.pool.only(event.only_node, need) is None:
            return Refused(code="overloaded", message=f"node {event.only_node} cannot take a challenge now")
        return self._room_refusal(event.account)

    def _challenge_began(self, request: Request) -> None:
        if request.only_node is not None:
            self._asking_of(request.only_node).request_id = request.request_id
            self._let_go(self.pool.nodes[request.only_node])

    def _challenge_placed(self, request: Request) -> None:
        """Until it is judged the node gets nothing else, which would slow it down: a queue that is full enough would
        bench whoever is challenged."""
        if request.only_node is not None and request.open_attempt is not None:
            node = self.pool.nodes[request.only_node]
            node.held = True
            self.pool.refresh(node)

    def _judge_challenge(self, request: Request, attempt: Attempt, node: Node) -> None:
        asking, trust = self._asking_of(node.node_id), self.trust.of(node.node_id)
        asking.request_id = ""
        self._let_go(node)
        if attempt.state is AttemptState.COMPLETED and not attempt.resumed:
            if self._judge_speed(request, attempt, node, asking):
                return
        elif attempt.state in _FAILED:
            self._bench(node, f"{_FAILED[attempt.state]}: {attempt.reason}")
        if not trust.benched_at and 0 < self.prove_until(node) <= self._now:
            self._bench(node, "proof_expired")
        self._plan_challenge(node, again=not trust.proven_at or self._now >= self._leads_from(node))

    def _judge_speed(self, request: Request, attempt: Attempt, node: Node, asking: Asking) -> bool:
        """Whether the node is to be asked once more at once, and that is planned."""
        floor = self.floor(attempt.model_digest, _tier(node))
        speed = _tokens_per_second(request, attempt)
        if floor and _tokens(request) < MEASURABLE_TOKENS:
            return False
        if speed < floor:
            asking.slow_answers += 1
            if asking.slow_answers < SLOW_ANSWERS_TO_FAIL:
                self._challenge_at(node, self._now + self._between(1, self.settings.challenge_again_ms))
                return True
            self._bench(node, f"too_slow: {speed:.1f} of {floor:g} tokens per second")
        else:
            self._prove(node)
        asking.slow_answers = 0
        return False

    def _plan_challenge(self, node: Node, *, again: bool = False) -> None:
        """Draws the moment of the node's next challenge, where it needs one; `again` after one that showed nothing."""
        trust, settings = self.trust.of(node.node_id), self.settings
        self._asking_of(node.node_id).next_at = 0
        if not settings.challenges or not (trust.benched_at or self.must_prove(node)):
            return
        if trust.benched_at or again:
            since, until = self._now + settings.challenge_retry_ms // 2, self._now + settings.challenge_retry_ms
        elif not trust.proven_at:
            since, until = self._now, self._now + settings.challenge_lead_ms
        else:
            until = self.prove_until(node)
            since = max(self._now, until - settings.challenge_lead_ms)
        self._challenge_at(node, self._between(since, max(since, until)))

    def _challenge_at(self, node: Node, at: int) -> None:
        self._asking_of(node.node_id).next_at = at
        self._timers.set(at, "challenge", (node.node_id, at))

    def _challenge_due(self, planned: tuple[int, int]) -> None:
        node_id, at = planned
        asking, node = self._asking_of(node_id), self.pool.find(node_id)
        if asking.next_at != at:
            return
        asking.next_at = 0
        was_held = node is not None and node.held
        if node is None or asking.request_id or not (node.online and node.registered) or node.removed_until:
            # It is planned anew when the node is back, or the challenge over.
            if node is not None and not asking.request_id:
                self._let_go(node)
            return
        trust = self.trust.of(node_id)
        if was_held:
            self._let_go(node)
            if not trust.benched_at and 0 < self.prove_until(node) <= self._now:
                self._bench(node, "proof_expired")
        if not trust.benched_at and trust.proven_at and self._now < self._leads_from(node):
            self._plan_challenge(node)
            return
        if not node.paused and not node.reserved:
            self._pose_challenge(node)
        elif not (node.paused or was_held) and self._is_late(node):
            # Until now it might have shown its speed on the work it has. Short answers never do.
            node.held = True
            self.pool.refresh(node)
        self._plan_challenge(node, again=True)

    def _is_late(self, node: Node) -> bool:
        return node.benched or self._now >= self.prove_until(node) - self.settings.challenge_retry_ms

    def _pose_challenge(self, node: Node) -> None:
        model = self._challenged_model(node)
        if model is not None:
            tokens = self.settings.challenge_tokens
            self._effects.append(effects.PoseChallenge(node_id=node.node_id, model=model, tokens=tokens))

    def _freed(self, node: Node) -> None:
        """The node has a slot free again."""
        if node.held and not node.reserved and not self._asking_of(node.node_id).request_id:
            self._pose_challenge(node)

    def _let_go(self, node: Node) -> None:
        if node.held:
            node.held = False
            self.pool.refresh(node)

    def _challenged_model(self, node: Node) -> str | None:
        """What the catalogue calls the model to ask for: one with a floor, or any where the node has none."""
        digests = [model.digest for model in self._floored(node)] or [
            model.digest for model in node.models if model.digest in self._models_of_digest and _generates(model)
        ]
        if not digests:
            return None
        digest = sorted(digests)[self._between(0, len(digests))]
        return self._models_of_digest[digest][0]

    # The end of a proof -----------------------------------------------------------------------------------------------

    def _watch(self, node: Node) -> None:
        asking = self._asking_of(node.node_id)
        if not asking.watched:
            asking.watched = True
            self._timers.set(max(self._now, self.prove_until(node)), "proof", node.node_id)

    def _proof_due(self, node_id: int) -> None:
        node, asking = self.pool.nodes[node_id], self._asking_of(node_id)
        asking.watched = False
        if node.benched or not self.must_prove(node):
            return
        if self.prove_until(node) > self._now:
            self._watch(node)
        elif not asking.request_id and not node.held:
            self._bench(node, "proof_expired")
            self._plan_challenge(node)

    def _leads_from(self, node: Node) -> int:
        return self.prove_until(node) - self.settings.challenge_lead_ms

    # The bench --------------------------------------------------------------------------------------------------------

    def _meets_floor(self, request: Request, attempt: Attempt, node: Node) -> bool:
        if request.state is not RequestState.COMPLETED or attempt.resumed or _tokens(request) < MEASURABLE_TOKENS:
            return False
        floor = self.floor(attempt.model_digest, _tier(node))
        return 0 < floor <= _tokens_per_second(request, attempt)

    def _prove(self, node: Node) -> None:
        trust = self.trust.of(node.node_id)
        self._let_go(node)
        if not trust.benched_at and self._now - trust.proven_at < self.settings.proof_ms // PROOFS_KEPT:
            return
        trust.proven_at = self._now
        self.trust.changed(node.node_id)
        if not trust.benched_at:
            return
        trust.benched_at, trust.bench_reason = 0, ""
        node.benched = False
        self.pool.refresh(node)
        # What was not credited meanwhile must not come back by a receipt.
        self._rows.extend(self.uptime.take_rows_of(node.node_id))
        self._log("node.unbenched", node_id=str(node.node_id))
        if self.must_prove(node):
            self._watch(node)
        self._plan_challenge(node)

    def _bench(self, node: Node, reason: str) -> None:
        trust = self.trust.of(node.node_id)
        if not trust.benched_at:
            trust.benched_at = self._now
            node.benched = True
            self.pool.refresh(node)
            # Where it was the last good one, the least bad serve what waits.
            self._timers.set(self._now, "stand_in", None)
        trust.bench_reason = reason[:TEXT_MAX]
        self.trust.changed(node.node_id)
        self._log("node.benched", node_id=str(node.node_id), reason=reason)

    def _asking_of(self, node_id: int) -> Asking:
        return self._asking.setdefault(node_id, Asking())

    def _between(self, first: int, end: int) -> int:
        """A random number that a node cannot guess, from `first` up to and without `end`."""
        return first + int.from_bytes(self._random(8), "big") % max(1, end - first)


_FAILED = {
    AttemptState.MISSED: "missed",
    AttemptState.FAILED: "failed",
    AttemptState.REJECTED: "rejected",
}
"""Ends of a challenge that are the node's fault. One that it did not acknowledge counts as such a unit does."""


def _tier(node: Node) -> int:
    """What it is staked, and paid, for."""
    tier = node.registration.hardware_tier if node.registration is not None else 0
    return tier if tier in TIERS else 0


def _generates(model: ModelInfo) -> bool:
    return "chat" in model.features or "embeddings" not in model.features


def _tokens(request: Request) -> int:
    return request.usage.completion_tokens if request.usage is not None else 0


def _tokens_per_second(request: Request, attempt: Attempt) -> float:
    return _tokens(request) * 1000 / max(1, attempt.finished_at - attempt.started_at)
