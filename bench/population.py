"""A population of nodes, honest and not, on the real engine: nothing is decided here, everything is stepped there.

Requests arrive by chance, nodes take their time, audits are drawn by real secrets, made into payloads and compared by
the coordinator's own code; what nodes answer comes from a model of words (`bench.token_model`). The clock is virtual,
so an hour takes seconds. What each node could see is kept, for `bench.visible` to look for a trace of the draw in it.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import msgspec

from bench.behaviours import Actor, Models
from bench.token_model import DIGEST, NOISE_HONEST, Prompt, any_prompt, word
from parallelix.coordinator.auditing import Audit, Auditing
from parallelix.coordinator.live import LivePayload
from parallelix.engine import catalogue, effects, events
from parallelix.engine.challenges import ACCOUNT as CHALLENGER
from parallelix.engine.core import Engine, Step
from parallelix.engine.rows import AttemptRow, AuditRow, RecordRow
from parallelix.engine.settings import EngineSettings
from parallelix.engine.snapshot import Snapshot
from parallelix.engine.validator import Verified
from parallelix.protocol import canonical, sampling
from parallelix.protocol.calibration import Card
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.messages import Hardware, Manifest, ModelInfo, RuntimeInfo
from parallelix.protocol.records import ExecutionRecord, decode_record
from parallelix.protocol.registry import Registration
from parallelix.protocol.spot_check import Claim
from parallelix.protocol.work import Payload, ResultContent, Sampling, Usage

START_MS = 1_800_000_000_000
ACCOUNT = "0x" + "aa" * 20
PRLX = 10**18
MODEL = "words"
HEARTBEAT_MS = 10_000
CONFIRM_MS = 2_000
EPOCH_MS = 1_200_000
DEADLINE_MS = 600_000
SERVICE_MS = 1_300
"""Near the mean time of one request on a node of ordinary speed."""
PREFILL_MS_PER_TOKEN, DECODE_MS_PER_TOKEN = 0.5, 20.0
"""Of a middling GPU with a model of 8 billion parameters: 2,000 tokens in and 50 out a second."""
FLOOR_TOKENS_PER_SECOND = 20.0
WORD_BYTES = len(word(1))

EngineMaker: TypeAlias = Callable[[EngineSettings, catalogue.Catalogue], Engine]


class ShellMaker(Protocol):
    def __call__(
        self, *, cards: Mapping[str, Card], storage_key: bytes, random_bytes: Callable[[int], bytes]
    ) -> Auditing: ...


CATALOGUE = catalogue.parse(
    f"""
    [[models]]
    name = "{MODEL}"
    digests = ["{DIGEST}"]
    prompt_wei_per_1000 = "1000000"
    completion_wei_per_1000 = "3000000"
    context_tokens = 8192
    max_tokens_default = 100
    max_tokens_max = 1000
    speed_floors = {{ 1 = {FLOOR_TOKENS_PER_SECOND} }}
    """
)


@dataclass(slots=True, kw_only=True)
class Spec:
    """One node. Nodes of one `owner` never audit each other; 0 is an owner of its own. `patience` is how many units it
    answers honestly before it begins to cheat on `share` of them."""

    node_id: int
    behaviour: str = "honest"
    owner: int = 0
    share: float = 1.0
    patience: int = 0
    partners: frozenset[int] = frozenset()
    slots: int = 2
    slowness: float = 1.0
    deaf: bool = False
    """It sends heartbeats and takes up nothing."""
    noise: float = NOISE_HONEST


@dataclass(slots=True, kw_only=True)
class Sight:
    """One unit as its node saw it, and in `marked` what it could not see: of an execution, that it was drawn; of an
    audit, that it was a prepared one."""

    node_id: int
    features: dict[str, float]
    marked: bool = False
    rate: int = 0


@dataclass(slots=True, kw_only=True)
class Effort:
    """Tokens that were read and written. `read_anew` is what a runtime reads that keeps nothing between two calls."""

    units: int = 0
    read: int = 0
    read_anew: int = 0
    written: int = 0

    def add(self, read: int, written: int, *, read_anew: int = 0) -> None:
        self.units += 1
        self.read += read
        self.read_anew += read_anew or read
        self.written += written

    def plus(self, other: Effort) -> Effort:
        return Effort(
            units=self.units + other.units,
            read=self.read + other.read,
            read_anew=self.read_anew + other.read_anew,
            written=self.written + other.written,
        )

    def ms(self, prefill_ms: float, decode_ms: float, *, anew: bool = False) -> float:
        return (self.read_anew if anew else self.read) * prefill_ms + self.written * decode_ms


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of everything. Counts of units are by node id."""

    executed: Counter[int] = field(default_factory=Counter[int])
    removed_after: dict[int, int] = field(default_factory=dict[int, int])
    """Units that a node had executed, since it began to cheat, when it was first removed."""
    removed_as: dict[int, str] = field(default_factory=dict[int, str])
    """In which role it was convicted."""
    states: Counter[str] = field(default_factory=Counter[str])
    verdicts: Counter[tuple[str, str]] = field(default_factory=Counter[tuple[str, str]])
    prepared: Counter[str] = field(default_factory=Counter[str])
    bad_done: int = 0
    bad_overturned: int = 0
    good_overturned: int = 0
    same_owner_pairs: int = 0
    audits_out_of_place: int = 0
    """Executions that were drawn and have no audit, or the other way round."""
    benched_after_ms: dict[int, int] = field(default_factory=dict[int, int])
    """Since the beginning, by node id: when it first stopped counting as online, and why."""
    benched_for: Counter[str] = field(default_factory=Counter[str])
    work: Effort = field(default_factory=Effort)
    """Of executions that were sampled at the floor, and of their audits."""
    audits: Effort = field(default_factory=Effort)

    @property
    def accepted_bad(self) -> int:
        return self.bad_done - self.bad_overturned


@dataclass(slots=True, kw_only=True)
class _Unit:
    """What this world knows of a request until nothing of it is open any more. The coordinator does not know `claim`'s
    truth."""

    prompt: Prompt
    payload: Payload
    sealed_bytes: int
    claim: Claim | None = None
    executor: int = 0
    cheated: bool = False
    floor: bool = False


class Population:
    """One engine, its nodes and its requesters, all from one seed.

    `load` is how many of the slots are at work on average. With `watch` what nodes see is kept."""

    def __init__(
        self,
        specs: Sequence[Spec],
        *,
        seed: int,
        load: float = 0.6,
        watch: bool = False,
        make_engine: EngineMaker = Engine,
        make_shell: ShellMaker = Auditing,
        **changes: Any,
    ) -> None:
        self.specs = {spec.node_id: spec for spec in specs}
        self.load, self.watch = load, watch
        self.tally = Tally()
        self.sights: list[Sight] = []
        self.audit_sights: list[Sight] = []
        self.now = START_MS
        self._chance = random.Random(f"population {seed}")
        chosen: dict[str, Any] = {"chain_id": 31337, "batch_ms": 60_000, "batch_records_max": 512, **changes}
        self.engine = make_engine(EngineSettings(**chosen), CATALOGUE)
        self._heap: list[tuple[int, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._actors = {spec.node_id: _actor(spec, seed) for spec in specs}
        self._units: dict[str, _Unit] = {}
        self._offers: dict[str, tuple[effects.Offer, int]] = {}
        self._epoch_of: dict[str, int] = {}
        self._opened: dict[str, bool] = {}
        self._newest = any_prompt(self._chance)
        self._last_record: ExecutionRecord | None = None
        self._asked = self._target = 0
        self._seen = {spec.node_id: _Memory() for spec in specs}
        self._master = self._chance.randbytes(32)
        self.shell = make_shell(cards={}, storage_key=self._chance.randbytes(32), random_bytes=self._chance.randbytes)
        self._take(self.engine.restore(Snapshot(), (), self.now, self._chance.randbytes))
        self._begin()

    # The world --------------------------------------------------------------------------------------------------------

    def run(self, requests: int, *, until: Callable[[Tally], bool] | None = None) -> Tally:
        """Lets so many more requests come and all of them end, their audits too; or stops as soon as `until`."""
        if self._asked >= self._target:
            self._later(1, self._arrive)
        self._target = self._asked + requests
        while (self._asked < self._target or self._units) and not (until is not None and until(self.tally)):
            self._turn()
        return self.tally

    def _turn(self) -> None:
        """The next thing that happens: one of ours, or a timer of the engine's."""
        due = self.engine.next_due()
        if due is not None and due <= self._heap[0][0]:
            self.now = max(self.now, due)
            self._step(events.Tick())
            return
        at, _, act = heapq.heappop(self._heap)
        self.now = max(self.now, at)
        act()

    def _later(self, milliseconds: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._heap, (self.now + max(1, round(milliseconds)), next(self._order), act))

    def _step(self, event: events.Event) -> effects.Answer:
        step = self.engine.step(event, self.now, self._chance.randbytes)
        self._take(step)
        return step.answer

    def _begin(self) -> None:
        self._epoch = -1
        self._next_epoch()
        self._step(events.Grant(grant_id="g", account=ACCOUNT, amount_wei=PRLX))
        self._step(events.KeyIssued(key_id="k", key_hash="k", account=ACCOUNT, name="k"))
        self._step(events.RegistryChanged(registrations=tuple(map(_registration, self.specs.values()))))
        for spec in self.specs.values():
            self._attach(spec)
            self._later(self._chance.uniform(0, HEARTBEAT_MS), lambda node_id=spec.node_id: self._beat(node_id))

    def _attach(self, spec: Spec) -> None:
        manifest = _manifest(spec, self.now)
        answer = self._step(
            events.Attached(
                node_id=spec.node_id,
                session=f"s{spec.node_id}",
                manifest=manifest,
                manifest_json=canonical.encode(manifest).decode(),
                public_key="0x" + "11" * 64,
            )
        )
        assert answer is None, answer

    def _beat(self, node_id: int) -> None:
        self._step(events.Heartbeat(node_id=node_id, unix_ms=self.now, paused=False))
        self._later(HEARTBEAT_MS, lambda: self._beat(node_id))

    def _next_epoch(self) -> None:
        """At most two are open, as the anchor demands."""
        for epoch in self.engine.epochs_revealable() if self._epoch >= 0 else ():
            self._step(events.EpochRevealed(epoch=epoch, secret=to_hex(self._secret(epoch))))
        if self._epoch < 0 or self.engine.oldest_open_epoch() == self._epoch:
            self._epoch += 1
            commitment = sampling.commitment(self._secret(self._epoch))
            self._step(events.EpochBegan(epoch=self._epoch, commitment=to_hex(commitment)))
        self._later(EPOCH_MS, self._next_epoch)

    def _secret(self, epoch: int) -> bytes:
        return sampling.epoch_secret(self._master, epoch)

    # Requesters -------------------------------------------------------------------------------------------------------

    def _arrive(self) -> None:
        self._asked += 1
        self._newest = any_prompt(self._chance)
        answer = self._step(
            events.Admit(
                account=ACCOUNT,
                key_id="k",
                workload_class="ai.inference",
                kind="completion",
                model=MODEL,
                prompt_bytes=4 * self._newest.tokens,
                max_tokens=self._newest.tokens_max,
                deadline_ms=DEADLINE_MS,
            )
        )
        assert isinstance(answer, effects.Admitted), answer
        if self._asked < self._target:
            slots = sum(spec.slots / spec.slowness for spec in self.specs.values() if not self._removed(spec.node_id))
            self._later(self._chance.expovariate(1) * SERVICE_MS / (self.load * max(1.0, slots)), self._arrive)

    def _challenge(self, challenge: effects.PoseChallenge) -> None:
        """An ordinary-looking request on the coordinator's own account, which waits in no queue."""
        self._newest = any_prompt(self._chance, tokens_max=challenge.tokens)
        self._step(
            events.Admit(
                account=CHALLENGER,
                key_id="",
                workload_class="ai.inference",
                kind="completion",
                model=challenge.model,
                prompt_bytes=4 * self._newest.tokens,
                max_tokens=challenge.tokens,
                only_node=challenge.node_id,
            )
        )

    def _removed(self, node_id: int) -> bool:
        node = self.engine.pool.nodes.get(node_id)
        return node is None or bool(node.removed_until)

    # What the engine wants done ---------------------------------------------------------------------------------------

    def _take(self, step: Step) -> None:
        if isinstance(step.answer, effects.Admitted):
            self._units[step.answer.request_id] = self._unit(step.answer.request_id)
        for row in step.rows:
            if isinstance(row, AttemptRow):
                self._epoch_of[row.attempt_id] = row.epoch
            elif isinstance(row, RecordRow):
                record = decode_record(row.body)
                self._last_record = record if isinstance(record, ExecutionRecord) else self._last_record
            elif isinstance(row, AuditRow) and row.finished_at:
                self._count_audit(row)
        for effect in step.effects:
            self._carry(effect)

    def _carry(self, effect: effects.Effect) -> None:
        match effect:
            case effects.Offer():
                self._offered(effect)
            case effects.Withdraw():
                self._let_go(effect.attempt_id)
            case effects.OpenAudit():
                self._open_audit(effect)
            case effects.RunAgain():
                self.shell.run_again(effect.audit_id)
            case effects.AuditEnded():
                self._audit_ended(effect)
            case effects.AnchorBatch():
                self._later(CONFIRM_MS, lambda number=effect.batch.number: self._confirm(number))
            case effects.RequestProgress(kind="finished"):
                self.tally.states[effect.state] += 1
                if effect.state != "completed":
                    del self._units[effect.request_id]
            case effects.LogEvent(name="node.convicted"):
                self.tally.removed_as.setdefault(int(effect.fields["node_id"]), effect.fields["role"])
            case effects.PoseChallenge():
                self._later(1, lambda challenge=effect: self._challenge(challenge))
            case effects.LogEvent(name="node.benched"):
                node_id, reason = int(effect.fields["node_id"]), str(effect.fields["reason"]).split(":", maxsplit=1)[0]
                if node_id not in self.tally.benched_after_ms:
                    self.tally.benched_after_ms[node_id] = self.now - START_MS
                    self.tally.benched_for[reason] += 1
            case effects.LogEvent(name="node.removed"):
                node_id = int(effect.fields["node_id"])
                cheated = self.tally.executed[node_id] - self.specs[node_id].patience
                self.tally.removed_after.setdefault(node_id, max(0, cheated))
            case _:
                pass

    def _unit(self, request_id: str) -> _Unit:
        prompt = self._newest
        payload = Payload(
            kind="completion",
            model=MODEL,
            prompt="".join(word(prompt.last) for _ in range(prompt.tokens)),
            sampling=Sampling(max_tokens=prompt.tokens_max, temperature=str(prompt.temperature)),
        )
        sealed = LivePayload.seal(request_id, canonical.encode(payload), self._chance.randbytes)
        return _Unit(prompt=prompt, payload=payload, sealed_bytes=len(sealed.text))

    def _confirm(self, number: int) -> None:
        self._step(events.BatchConfirmed(number=number, reference=f"local:{number}"))

    # Executing --------------------------------------------------------------------------------------------------------

    def _offered(self, offer: effects.Offer) -> None:
        self._offers[offer.attempt_id] = (offer, self.now)
        memory = self._seen[offer.node_id]
        memory.at_work += 1
        self._later(self._chance.lognormvariate(4.6, 0.5), lambda: self._acknowledge(offer))

    def _acknowledge(self, offer: effects.Offer) -> None:
        if offer.attempt_id not in self._offers:
            return
        if self.specs[offer.node_id].deaf:
            return
        answer = self._step(events.Acknowledged(attempt_id=offer.attempt_id, node_id=offer.node_id))
        if isinstance(answer, effects.Refused):
            self._let_go(offer.attempt_id)
        elif offer.is_audit:
            self._later(self._takes(offer.node_id, self._audit_ms(offer.request_id)), lambda: self._answer(offer))
        else:
            self._execute(offer)

    def _let_go(self, attempt_id: str) -> int:
        """Gives when it was offered; 0 where that is not known any more."""
        offer, offered_at = self._offers.pop(attempt_id, (None, 0))
        if offer is not None:
            self._seen[offer.node_id].at_work -= 1
        return offered_at

    def _takes(self, node_id: int, needed_ms: float) -> float:
        return self.specs[node_id].slowness * needed_ms * self._chance.lognormvariate(0, 0.1)

    def _execute(self, offer: effects.Offer) -> None:
        prompt, spec = self._units[offer.request_id].prompt, self.specs[offer.node_id]
        honestly = self.tally.executed[offer.node_id] < spec.patience
        claim, cheated = self._actors[offer.node_id].execute(prompt, honestly=honestly)
        needed_ms = PREFILL_MS_PER_TOKEN * prompt.tokens + DECODE_MS_PER_TOKEN * len(claim.entries)
        self._later(self._takes(offer.node_id, needed_ms), lambda: self._return(offer, claim, cheated))

    def _return(self, offer: effects.Offer, claim: Claim, cheated: bool) -> None:
        offered_at = self._let_go(offer.attempt_id)
        if not offered_at:
            return
        sight = self._look(offer, offered_at, claim) if self.watch else None
        poe_commitment = to_hex(self._chance.randbytes(32))
        draw = self.draw(offer, poe_commitment)
        facts = _facts(claim, draw=draw, poe_commitment=poe_commitment)
        unit, tally = self._units[offer.request_id], self.tally
        unit.claim, unit.executor, unit.cheated = claim, offer.node_id, cheated
        if sampling.drawn(draw, self.engine.trust.rate_percent(offer.node_id)):
            can_probe = self.shell.consider(offer.attempt_id, unit.payload, _verified(claim, facts))
            facts = msgspec.structs.replace(facts, spot_check=can_probe)
        tally.executed[offer.node_id] += 1
        tally.bad_done += cheated
        self._last_record = None
        self._step(
            events.ResultReturned(attempt_id=offer.attempt_id, node_id=offer.node_id, outcome="completed", facts=facts)
        )
        self.shell.forget_fresh(offer.attempt_id)
        # The step that recorded it says at what rate; whether it opened an audit must follow from that.
        record: ExecutionRecord | None = self._last_record
        assert record is not None and record.poe_commitment == poe_commitment, record
        drawn, opened = sampling.drawn(draw, record.rate), self._opened.pop(offer.request_id, False)
        tally.audits_out_of_place += drawn != opened
        if record.rate == self.engine.settings.sampling_floor_percent:
            unit.floor = True
            tally.work.add(unit.prompt.tokens, len(claim.entries))
        if sight is not None:
            sight.marked, sight.rate = drawn, record.rate
            self.sights.append(sight)
        if not opened:
            del self._units[offer.request_id]

    def draw(self, offer: effects.Offer, poe_commitment: str) -> int:
        """By the secret of the epoch that the attempt belongs to. A faulty coordinator may draw otherwise."""
        return sampling.draw(self._secret(self._epoch_of[offer.attempt_id]), poe_commitment)

    # Auditing ---------------------------------------------------------------------------------------------------------

    def _open_audit(self, effect: effects.OpenAudit) -> None:
        self.shell.open(effect)
        self._units[effect.audit_id] = self._units[effect.request_id]
        if not effect.prepared_from:
            self._opened[effect.request_id] = True

    def _effort(self, unit: _Unit, audit: Audit) -> tuple[int, int, int]:
        """Tokens read, read anew and written. Runtimes keep what they have read, so that all positions together cost
        one prefill of the prompt and of the answer's beginning, and a token each; a whole run what executing did."""
        assert unit.claim is not None
        prompt, probes = unit.prompt.tokens, audit.probes
        if probes is None:
            return prompt, prompt, len(unit.claim.entries)
        before = [position // WORD_BYTES for position in probes.positions]
        return prompt + before[-1], prompt * len(before) + sum(before), len(before)

    def _count_effort(self, unit: _Unit, audit: Audit) -> None:
        read, anew, written = self._effort(unit, audit)
        self.tally.audits.add(read, written, read_anew=anew)

    def _audit_ms(self, audit_id: str) -> float:
        audit = self.shell.find(audit_id)
        assert audit is not None
        read, _, written = self._effort(self._units[audit_id], audit)
        return PREFILL_MS_PER_TOKEN * read + DECODE_MS_PER_TOKEN * written

    def _answer(self, offer: effects.Offer) -> None:
        offered_at = self._let_go(offer.attempt_id)
        audit = self.shell.find(offer.request_id)
        if not offered_at or audit is None:
            return
        unit = self._units[offer.request_id]
        if unit.floor:
            self._count_effort(unit, audit)
        if self.watch:
            self._look_at_audit(offer, offered_at, audit, unit)
        verdict = self._audited(self._actors[offer.node_id], audit, unit)
        judged = self.shell.judge(audit, verdict)
        noted = self.shell.note(audit, verdict, judged.finding)
        stage = self.engine.audits[audit.audit_id].stage
        self._step(
            events.AuditAnswered(
                attempt_id=offer.attempt_id, node_id=offer.node_id, finding=judged.finding, third=judged.third
            )
        )
        after = self.engine.audits.get(audit.audit_id)
        if after is not None and after.stage == stage:
            # The auditor was removed meanwhile, and is not believed.
            noted.undo(audit)

    def _audited(self, actor: Actor, audit: Audit, unit: _Unit) -> Verified:
        assert unit.claim is not None
        if audit.probes is None:
            rerun, _ = actor.execute(unit.prompt)
            return _verified(rerun, _facts(rerun))
        answer = actor.audit(unit.prompt, audit.probes, unit.executor, unit.claim)
        content = ResultContent(finish_reason="stop", probe_prompt_tokens=answer.prompt_tokens)
        return Verified(
            content=content,
            content_bytes=canonical.encode(content),
            entries=answer.entries,
            entries_bytes=b"",
            facts=_facts(unit.claim),
        )

    def _audit_ended(self, effect: effects.AuditEnded) -> None:
        audit = self.shell.forget(effect.audit_id)
        unit = self._units.pop(effect.audit_id, None)
        if audit is None or unit is None or audit.known is not None:
            return
        self._units.pop(effect.request_id, None)
        if effect.verdict == "disagree" and unit.cheated:
            self.tally.bad_overturned += 1
        elif effect.verdict == "disagree":
            self.tally.good_overturned += 1

    def _count_audit(self, row: AuditRow) -> None:
        """Who took part must be strangers to each other."""
        if row.prepared_from:
            self.tally.prepared[row.verdict] += 1
        else:
            self.tally.verdicts[row.verdict, row.reason] += 1
        nodes = [int(each) for each in (row.node_id, row.auditor_id, row.third_id) if each and int(each) in self.specs]
        owners = [_owner(self.specs[node_id]) for node_id in nodes]
        self.tally.same_owner_pairs += len(owners) - len(set(owners))

    # What a node sees -------------------------------------------------------------------------------------------------

    def _look(self, offer: effects.Offer, offered_at: int, claim: Claim) -> Sight:
        memory, prompt = self._seen[offer.node_id], self._units[offer.request_id].prompt
        features = {
            **self._look_at_offer(offer, offered_at, memory),
            "payload bytes": float(self._units[offer.request_id].sealed_bytes),
            "prompt tokens": float(prompt.tokens),
            "tokens asked": float(prompt.tokens_max),
            "temperature": prompt.temperature,
            "answer tokens": float(claim.completion_tokens),
            "answer ended": float(claim.finish_reason == "stop"),
            "answer confidence": claim.entries[0].logprob or 0.0 if claim.entries else 0.0,
        }
        memory.executions += 1
        memory.last_execution_at = offered_at
        return Sight(node_id=offer.node_id, features=features)

    def _look_at_audit(self, offer: effects.Offer, offered_at: int, audit: Audit, unit: _Unit) -> None:
        memory, probes = self._seen[offer.node_id], audit.probes
        if probes is None:
            return
        places = [position // WORD_BYTES for position in probes.positions]
        gaps = [later - earlier for earlier, later in itertools.pairwise(places)]
        features = {
            **self._look_at_offer(offer, offered_at, memory),
            "payload bytes": float(len(audit.sealed.text)),
            "prompt bytes": float(len(audit.payload.prompt)),
            "tokens asked": float(audit.payload.sampling.max_tokens),
            "alternatives asked": float(audit.payload.sampling.top_logprobs),
            "temperature": float(audit.payload.sampling.temperature or 1),
            "text behind the last place": float(len(probes.text) - probes.positions[-1]),
            "text bytes": float(len(probes.text)),
            "positions": float(len(places)),
            "first place": float(places[1] if len(places) > 1 else 0),
            "last place": float(places[-1]),
            "longest gap": float(max(gaps, default=0)),
            "shortest gap": float(min(gaps, default=0)),
            "prompt tokens by text": unit.prompt.tokens / (1 + len(probes.text)),
            "text seen before": float(memory.texts[probes.text]),
        }
        memory.texts[probes.text] += 1
        memory.audits += 1
        memory.last_audit_at = offered_at
        self.audit_sights.append(Sight(node_id=offer.node_id, features=features, marked=audit.known is not None))

    def _look_at_offer(self, offer: effects.Offer, offered_at: int, memory: _Memory) -> dict[str, float]:
        """Of ids all there is: the time that they begin with, and bytes of chance."""
        unit_id, attempt_id = offer.request_id.split("_")[1], offer.attempt_id.split("_")[1]
        notice = self.engine.trust.of(offer.node_id)
        return {
            "unit id: age in ms": float(offered_at - int(unit_id[:12], 16)),
            "attempt id: age in ms": float(offered_at - int(attempt_id[:12], 16)),
            "unit id: chance": float(int(unit_id[12:24], 16)),
            "attempt id: chance": float(int(attempt_id[12:24], 16)),
            "attempt number": float(offer.attempt_number),
            "deadline ms": float(offer.deadline_ms),
            "ms since last execution": float(offered_at - memory.last_execution_at),
            "ms since last audit": float(offered_at - memory.last_audit_at),
            "ms within second": float(offered_at % 1000),
            "executed so far": float(memory.executions),
            "audited others so far": float(memory.audits),
            "units at work": float(memory.at_work),
            "own results audited so far": float(notice.audited),
        }


@dataclass(slots=True)
class _Memory:
    """What one node remembers of what it was given."""

    at_work: int = 0
    executions: int = 0
    audits: int = 0
    last_execution_at: int = START_MS
    last_audit_at: int = START_MS
    texts: Counter[str] = field(default_factory=Counter[str])


def _facts(claim: Claim, *, draw: int = 0, poe_commitment: str = "0x" + "03" * 32) -> events.ExecutionFacts:
    """A cheat may state other counts than there are; the coordinator's own is then the lesser."""
    return events.ExecutionFacts(
        usage=Usage(prompt_tokens=claim.prompt_tokens, completion_tokens=claim.completion_tokens),
        entries_counted=claim.completion_tokens,
        input_hash="0x" + "01" * 32,
        result_hash="0x" + "02" * 32,
        poe_commitment=poe_commitment,
        model_digest=DIGEST,
        draw=draw,
    )


def _verified(claim: Claim, facts: events.ExecutionFacts) -> Verified:
    """A result as it is after its signatures were checked."""
    content = ResultContent(text=claim.text, finish_reason=claim.finish_reason)
    return Verified(
        content=content,
        content_bytes=canonical.encode(content),
        entries=claim.entries,
        entries_bytes=b"",
        facts=facts,
    )


def _actor(spec: Spec, seed: int) -> Actor:
    chance = random.Random(f"{seed}/{spec.node_id}")
    models = Models(chance, spec.noise)
    return Actor(name=spec.behaviour, models=models, chance=chance, share=spec.share, partners=spec.partners)


def _owner(spec: Spec) -> str:
    return f"0x{spec.owner or spec.node_id:040x}"


def _registration(spec: Spec) -> Registration:
    return Registration(
        node_id=str(spec.node_id),
        owner=_owner(spec),
        stake_wei=str(50_000 * PRLX),
        hardware_tier=1,
        node_key_hash=f"0x{spec.node_id:064x}",
        state="active",
    )


def _manifest(spec: Spec, now: int) -> Manifest:
    model = ModelInfo(
        name=MODEL, digest=DIGEST, context_tokens=8192, features=("chat", "completion", "logprobs", "probe")
    )
    return Manifest(
        node_id=str(spec.node_id),
        chain_id=31337,
        mode="cpu",
        hardware_tier=1,
        hardware=Hardware(cpu_cores=2),
        workload_classes=("ai.inference",),
        runtimes=(RuntimeInfo(name="words", version="1"),),
        models=(model,),
        slots=spec.slots,
        envelope_key="e",
        poe_key="p",
        client_version="0",
        issued_at=now,
        run_id="run",
    )
