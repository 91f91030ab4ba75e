"""What `/metrics` shows. One registry for each coordinator, so that two in one process do not share counters."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, generate_latest

from parallelix.protocol.work import Usage

COMMIT_SECONDS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
AUDIT_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
GROUP_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 5000)


class _Registry(CollectorRegistry):
    def collect(self) -> Iterable[Metric]:
        """Without the series that say when each counter began: the library leaves them out for a whole process only."""
        for metric in super().collect():
            metric.samples = [each for each in metric.samples if not each.name.endswith("_created")]
            yield metric


class Metrics:
    def __init__(self) -> None:
        self.registry = _Registry()
        self.requests = Counter(
            "parallelix_requests", "Requests that ended, by final state", ["state"], registry=self.registry
        )
        self.tokens = Counter("parallelix_tokens", "Tokens charged", ["kind"], registry=self.registry)
        self.events = Counter(
            "parallelix_events", "Log events of the engine, by name", ["event"], registry=self.registry
        )
        # `labels` looks its child up under a lock: a tenth of what ending a request costs.
        self._prompt_tokens = self.tokens.labels("prompt")
        self._completion_tokens = self.tokens.labels("completion")
        self._ended: dict[str, Counter] = {}
        self.audits_opened = Counter(
            "parallelix_audits_opened", "Audits begun, by kind", ["kind"], registry=self.registry
        )
        self.audit_verdicts = Counter(
            "parallelix_audit_verdicts", "Audits that ended, by verdict", ["verdict"], registry=self.registry
        )
        self.audit_seconds = Histogram(
            "parallelix_audit_seconds", "Auditors' time for one answer", buckets=AUDIT_SECONDS, registry=self.registry
        )
        self.compare_seconds = Histogram(
            "parallelix_compare_seconds", "Time of one comparison", buckets=COMMIT_SECONDS, registry=self.registry
        )
        self.open_audits = Gauge("parallelix_open_audits", "Audits without a verdict", registry=self.registry)
        self.epoch = Gauge("parallelix_epoch", "The present epoch of sampling", registry=self.registry)
        self.heartbeats = Counter("parallelix_heartbeats", "Heartbeats accepted", registry=self.registry)
        self.refusals = Counter("parallelix_refusals", "Calls refused, by code", ["code"], registry=self.registry)
        self.commit_seconds = Histogram(
            "parallelix_commit_seconds", "Time of one durable commit", buckets=COMMIT_SECONDS, registry=self.registry
        )
        self.commit_rows = Histogram(
            "parallelix_commit_rows", "Rows in one commit group", buckets=GROUP_ROWS, registry=self.registry
        )
        self.open_requests = Gauge("parallelix_open_requests", "Requests not yet ended", registry=self.registry)
        self.waiting_requests = Gauge("parallelix_waiting_requests", "Requests held", registry=self.registry)
        self.nodes_online = Gauge("parallelix_nodes_online", "Nodes online", registry=self.registry)
        self.nodes_benched = Gauge(
            "parallelix_nodes_benched", "Nodes that are there and failed a challenge", registry=self.registry
        )
        self.slots_free = Gauge("parallelix_slots_free", "Free slots of online nodes", registry=self.registry)
        self.records = Gauge("parallelix_records", "Records in the chain", registry=self.registry)
        self.chain_block = Gauge("parallelix_chain_block", "The last block that was taken in", registry=self.registry)
        self.chain_halted = Gauge(
            "parallelix_chain_halted", "1 where what depends on it stands still", ["part"], registry=self.registry
        )

    def event(self, name: str) -> None:
        self.events.labels(name).inc()

    def audit_opened(self, *, prepared: bool) -> None:
        self.audits_opened.labels("prepared" if prepared else "drawn").inc()

    def finished(self, state: str, usage: Usage | None) -> None:
        ended = self._ended.get(state)
        if ended is None:
            ended = self._ended[state] = self.requests.labels(state)
        ended.inc()
        if usage is not None:
            self._prompt_tokens.inc(usage.prompt_tokens)
            self._completion_tokens.inc(usage.completion_tokens)

    def committed(self, rows: int, seconds: float) -> None:
        self.commit_rows.observe(rows)
        self.commit_seconds.observe(seconds)

    def text(self) -> bytes:
        return generate_latest(self.registry)
