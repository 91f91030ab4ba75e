"""Nodes come and go: what the registry says of them, their sessions, their heartbeats."""

from __future__ import annotations

from parallelix.engine import effects, events
from parallelix.engine.admission import overloaded
from parallelix.engine.deposits import CHAIN_RETRY_SECONDS
from parallelix.engine.effects import Answer, Refused
from parallelix.engine.lifecycle import AttemptState
from parallelix.engine.liveness import LivenessReport
from parallelix.engine.pool import Node
from parallelix.engine.steps import Steps
from parallelix.engine.uptime import SLOT_MS, oldest_slot
from parallelix.protocol.registry import Registration


class Nodes(Steps):
    def _registry_changed(self, event: events.RegistryChanged) -> Answer:
        for node_id in event.removed:
            self._strike_off(node_id)
        for registration in event.registrations:
            self._enrol(registration)
        for node_id in (*event.removed, *(int(each.node_id) for each in event.registrations)):
            node = self.pool.find(node_id)
            if node is not None:
                node.registration = self.registrations.get(node_id)
                self._expect_proof(node)
                self.pool.refresh(node)
                self._effects.append(effects.StandingChanged(node_id=node_id))
                self._drain(node)
        self._drain_penalised()
        return None

    def _attached(self, event: events.Attached) -> Answer:
        """The shell has checked the signature and that the key hashes to the registered one."""
        halted = self.mirror.halted("registry")
        if halted:
            return Refused(
                code="registry_halted",
                message=f"the registry and our copy of it differ ({halted}); attach again later",
                retry_after_seconds=CHAIN_RETRY_SECONDS,
            )
        standing = self.standing(event.node_id)
        if standing is not None:
            return standing
        registration = self.registrations[event.node_id]
        if event.manifest.hardware_tier < registration.hardware_tier:
            return Refused(
                code="tier_mismatch",
                message=f"node {event.node_id} is registered for tier {registration.hardware_tier}, but this machine "
                f"is tier {event.manifest.hardware_tier}; run it on the hardware it was registered for",
            )
        before = self.pool.find(event.node_id)
        if before is None and len(self.pool.nodes) >= self.settings.nodes_max:
            return overloaded(f"{len(self.pool.nodes)} nodes are attached, the most this coordinator serves")
        if before is not None and event.manifest.issued_at <= before.issued_at:
            return Refused(
                code="stale_time",
                message=f"manifest issued at {event.manifest.issued_at}, not after the last one ({before.issued_at})",
            )
        restarted = before is not None and before.manifest.run_id != event.manifest.run_id
        node = self._new_session(event, before, registration)
        if restarted:
            # Another run of the daemon: whatever the last one was doing died with it.
            self._lose_attempts(node, "node_restarted")
        else:
            self._offer_again(node)
        self._drain(node)
        if before is not None:
            # What it can do may have shrunk.
            self._drain_penalised()
        return None

    def _new_session(self, event: events.Attached, before: Node | None, registration: Registration) -> Node:
        node = Node(
            node_id=event.node_id,
            session=event.session,
            manifest=event.manifest,
            manifest_json=event.manifest_json,
            public_key=event.public_key,
            issued_at=event.manifest.issued_at,
            attached_at=self._now,
            registration=registration,
            last_seen=self._now,
            online=True,
        )
        if before is not None:
            node.removed_until, node.rejections = before.removed_until, before.rejections
            node.reserved, node.speeds, node.measured_at = before.reserved, before.speeds, before.measured_at
        self._expect_proof(node)
        self.pool.put(node)
        self._rows.append(node.row())
        if before is None or not before.online:
            self._timers.set(self._now + self.settings.offline_ms, "offline", node.node_id)
        return node

    def _offer_again(self, node: Node) -> None:
        """A new session of the same run: what it has not acknowledged is sealed to its new keys. Where its model is
        gone, it goes elsewhere."""
        digests = {model.digest for model in node.manifest.models}
        for attempt_id in sorted(node.reserved):
            attempt = self._attempts[attempt_id]
            request = self.requests[attempt.request_id]
            if attempt.state is AttemptState.OFFERED and attempt.model_digest in digests:
                self._send_offer(request, attempt, node)
            elif attempt.state is AttemptState.OFFERED:
                self._end_attempt(request, attempt, AttemptState.LOST, "model_gone")

    def _lose_attempts(self, node: Node, reason: str) -> None:
        for attempt_id in sorted(node.reserved):
            attempt = self._attempts[attempt_id]
            self._end_attempt(self.requests[attempt.request_id], attempt, AttemptState.LOST, reason)

    def _heartbeat(self, event: events.Heartbeat) -> Answer:
        standing = self.standing(event.node_id)
        if standing is not None:
            return standing
        node = self.pool.nodes[event.node_id]
        node.last_seen = self._now
        if not node.online or node.paused != event.paused:
            if not node.online:
                self._timers.set(self._now + self.settings.offline_ms, "offline", node.node_id)
            node.online, node.paused = True, event.paused
            self._expect_proof(node)
            self.pool.refresh(node)
            self._drain(node)
            if event.paused:
                self._drain_penalised()
        if node.benched:
            return self._withhold(node, event.unix_ms)
        slot, credited = self.uptime.credit(event.node_id, event.unix_ms)
        self.liveness.credit(event.node_id, slot)
        return effects.SlotCredited(slot=slot, credited=credited)

    def _withhold(self, node: Node, unix_ms: int) -> Answer:
        """It is there, and does not count as online. The receipt that it gets must not bring the slot back."""
        slot = unix_ms // SLOT_MS
        if self.uptime.is_open(node.node_id, slot):
            self.uptime.void(node.node_id, unix_ms, unix_ms)
        return effects.SlotCredited(slot=slot, credited=False)

    # Uptime and rewards -----------------------------------------------------------------------------------------------

    def liveness_report(self, limit: int) -> LivenessReport | None:
        """What the rewards contract should be told now, in at most `limit` changes; None when there is nothing to say.

        A read: asked twice, it names the same slots twice. Ask again once the events of the last report have come in.
        Nothing is said while registry or anchor are halted: uptime rests on both.
        """
        if self.mirror.halted("registry") or self.mirror.halted("anchor"):
            return None
        return self.liveness.report(
            slot=self._now // SLOT_MS, limit=limit, is_active=self._is_active, may_earn=self._may_earn
        )

    def _is_active(self, node_id: int) -> bool:
        registration = self.registrations.get(node_id)
        return registration is not None and registration.state == "active"

    def _may_earn(self, node_id: int) -> bool:
        node = self.pool.find(node_id)
        return node is not None and not node.penalised

    def _uptime_restored(self, event: events.UptimeRestored) -> Answer:
        """The shell has checked each slot's receipt."""
        standing = self.standing(event.node_id)
        if standing is not None:
            return standing
        oldest, newest = oldest_slot(self._now), self._now // SLOT_MS
        trust = self.trust.known(event.node_id)
        if trust is not None and trust.benched_at:
            newest = min(newest, trust.benched_at // SLOT_MS)
        slots = (slot for slot in event.slots if oldest <= slot <= newest)
        return effects.SlotsRestored(credited=self.uptime.restore_slots(event.node_id, slots))
