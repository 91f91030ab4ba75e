"""What a run measured: each figure's median over the rounds with its spread, as one object and as a table."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from bench.load import Drive
from bench.stopwatch import median


@dataclass(frozen=True, slots=True, kw_only=True)
class Goal:
    """What a figure is to reach. A goal that is not reached is said, and fails nothing."""

    figure: str
    bound: float
    sense: Literal["at most", "at least"]

    def reached(self, value: float) -> bool:
        return value <= self.bound if self.sense == "at most" else value >= self.bound


GOALS = (
    Goal(figure="coordinator_cpu_ms_per_request", bound=1.5, sense="at most"),
    Goal(figure="ratio_to_litellm", bound=4, sense="at least"),
    Goal(figure="alone_added_ms_p50", bound=5, sense="at most"),
    Goal(figure="paced_added_ms_p50", bound=5, sense="at most"),
    Goal(figure="match_us_100000", bound=50, sense="at most"),
)


@dataclass(slots=True)
class Figures:
    """Each figure's value in each round, and everything that went wrong."""

    series: dict[str, list[float]] = field(default_factory=lambda: defaultdict[str, list[float]](list))
    faults: list[str] = field(default_factory=list[str])

    def add(self, name: str, value: float) -> None:
        self.series[name].append(value)

    def value(self, name: str) -> float | None:
        """The median of the rounds; None for what was not measured."""
        return rounded(median(self.series[name])) if name in self.series else None

    def take_over(self, what: str, done: Drive, wanted: int) -> None:
        """Every call of a run must have completed."""
        if done.completed != wanted:
            first = done.errors[0] if done.errors else "no error was reported"
            self.faults.append(f"{what}: {done.completed} of {wanted} completed; {first}")

    def goals(self) -> list[dict[str, Any]]:
        values = ((goal, self.value(goal.figure)) for goal in GOALS)
        return [
            {"figure": goal.figure, "goal": f"{goal.sense} {goal.bound:g}", "reached": goal.reached(value)}
            for goal, value in values
            if value is not None
        ]


def rounded(value: float) -> float:
    """To four significant digits: more would be noise."""
    return float(f"{value:.4g}")


def results_of(figures: Figures, *, fleets: Sequence[int], pools: Sequence[int]) -> dict[str, Any]:
    """The named figures, and below them all that was measured."""
    value = figures.value
    return {
        "coordinator_cpu_ms_per_request": value("coordinator_cpu_ms_per_request"),
        "floor_cpu_ms_per_request": value("floor_cpu_ms_per_request"),
        "requests_per_core_second": value("requests_per_core_second"),
        "litellm_requests_per_core_second": value("litellm_requests_per_core_second"),
        "ratio_to_litellm": value("ratio_to_litellm"),
        "added_latency_ms": {
            str(in_flight): {share: value(f"{name}_added_ms_{share}") for share in ("p50", "p99")}
            for in_flight, name in ((1, "alone"), (32, "paced"))
        },
        "first_token_added_ms": {
            str(streams): {share: value(f"{name}_first_added_ms_{share}") for share in ("p50", "p99")}
            for streams, name in ((1, "stream"), (256, "streams"))
        },
        "heartbeats_per_core_second": {str(count): value(f"heartbeats_per_core_second_{count}") for count in fleets},
        "resident_mib": {str(count): value(f"resident_mib_{count}") for count in (0, *fleets)},
        "match_us": {str(count): value(f"match_us_{count}") for count in pools},
        "goals": figures.goals(),
        "details": {
            name: {"median": value(name), "min": rounded(min(values)), "max": rounded(max(values))}
            for name, values in sorted(figures.series.items())
        },
        "faults": figures.faults,
    }


# Title, figure, or a heading where there is no figure.
_REQUEST_ROWS: tuple[tuple[str, str], ...] = (
    ("machine", ""),
    ("taken by other processes, % of its CPU", "others_percent"),
    ("disk: one page made durable, ms", "disk_sync_ms"),
    ("coordinator, 32 in flight", ""),
    ("CPU per request, ms", "coordinator_cpu_ms_per_request"),
    ("of it bare cryptography, ms", "floor_cpu_ms_per_request"),
    ("CPU per request, 1 in flight, ms", "coordinator_cpu_ms_per_request_alone"),
    ("CPU while idle, ms per second", "idle_cpu_ms_per_second"),
    ("requests per core-second", "requests_per_core_second"),
    ("LiteLLM, 32 in flight", ""),
    ("CPU per request, ms", "litellm_cpu_ms_per_request"),
    ("requests per core-second", "litellm_requests_per_core_second"),
    ("coordinator : LiteLLM", "ratio_to_litellm"),
    ("added latency, ms", ""),
    ("1 in flight, p50", "alone_added_ms_p50"),
    ("1 in flight, p99", "alone_added_ms_p99"),
    ("32 in flight, runtime of 400 ms, p50", "paced_added_ms_p50"),
    ("32 in flight, runtime of 400 ms, p99", "paced_added_ms_p99"),
    ("32 in flight, saturated, p50", "saturated_added_ms_p50"),
    ("32 in flight, saturated, p99", "saturated_added_ms_p99"),
    ("LiteLLM, 1 in flight, p50", "litellm_alone_latency_ms_p50"),
    ("LiteLLM, 32 in flight, saturated, p50", "litellm_saturated_latency_ms_p50"),
    ("subtracted: runtime, 1 in flight", "alone_runtime_ms"),
    ("subtracted: node's RSA, 1 in flight", "alone_rsa_ms"),
    ("subtracted: runtime, 32 in flight", "paced_runtime_ms"),
    ("subtracted: node's RSA, 32 in flight", "paced_rsa_ms"),
    ("first token added, ms", ""),
    ("1 stream, p50", "stream_first_added_ms_p50"),
    ("1 stream, p99", "stream_first_added_ms_p99"),
    ("256 streams, p50", "streams_first_added_ms_p50"),
    ("256 streams, p99", "streams_first_added_ms_p99"),
)


def _rows(fleets: Sequence[int], pools: Sequence[int]) -> Iterator[tuple[str, str]]:
    yield from _REQUEST_ROWS
    yield "heartbeats per core-second", ""
    for count in fleets:
        yield f"{count:,} nodes attached", f"heartbeats_per_core_second_{count}"
    yield "resident memory, MiB", ""
    for count in (0, *fleets):
        yield f"{count:,} nodes attached", f"resident_mib_{count}"
    yield "LiteLLM, just started", "litellm_resident_mib"
    yield "one match, microseconds", ""
    for count in pools:
        yield f"{count:,} nodes", f"match_us_{count}"
        yield f"{count:,} nodes, all of them busy", f"match_all_busy_us_{count}"


def table(figures: Figures, *, fleets: Sequence[int], pools: Sequence[int]) -> str:
    """At most 80 columns."""
    goals = {goal.figure: goal for goal in GOALS}
    lines = [f"{'':<41}{'median':>9}{'from':>9}{'to':>9}"]
    heading = ""
    for title, name in _rows(fleets, pools):
        if not name:
            heading = title
        elif name in figures.series:
            if heading:
                lines.append(heading)
                heading = ""
            values = figures.series[name]
            numbers = "".join(f"{_shown(each):>9}" for each in (median(values), min(values), max(values)))
            lines.append(f"  {title:<39}{numbers}{_mark(goals.get(name), median(values))}")
    return "\n".join((*lines, *_verdicts(figures)))


def _shown(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _mark(goal: Goal | None, value: float) -> str:
    if goal is None:
        return ""
    return "  reached" if goal.reached(value) else "  not yet"


def _verdicts(figures: Figures) -> Iterator[str]:
    for goal in figures.goals():
        if not goal["reached"]:
            yield f"goal not reached: {goal['figure']} {goal['goal']}"
    for fault in figures.faults:
        yield f"FAULT: {fault}"
