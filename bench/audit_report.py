"""`python -m bench.audit_report --report reports/audit-report.json`: how soon cheats are caught, and what it costs.

Single audits of every behaviour go through the real comparator; from them thousands of lives of one node are lived
under the engine's trust and verdicts; and whole populations are played on the real engine. `--write-docs` also writes
the curves that docs/audits.md shows, as data and as a plot.
"""

from __future__ import annotations

import argparse
import hashlib
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from bench import intervals, plots, verdict_runs, visible
from bench.audit_controls import CONTROLS
from bench.audit_jobs import (
    FULL_TIME_WITHIN,
    HONEST_PARTS,
    WHOLE,
    Pools,
    Sizes,
    Variation,
    case_jobs,
    engine_jobs,
    life_jobs,
    pools_of,
    run_all,
    variations,
)
from bench.cases import CASTS, Case
from bench.communities import COMMUNITIES, HonestPlayed, Played
from bench.plots import Axis, Line
from bench.population import DECODE_MS_PER_TOKEN, PREFILL_MS_PER_TOKEN, Effort
from bench.verdict_runs import Acquitted, Caught, Life
from bench.visible import Indistinct
from parallelix.devnet.report import Report
from parallelix.protocol.calibration import Card, decode_card

REPOSITORY = Path(__file__).resolve().parent.parent
CURVES = REPOSITORY / "docs" / "data" / "audit-curves.csv"
PLOT = REPOSITORY / "docs" / "images" / "audit-detection.svg"
CARD = REPOSITORY / "docs" / "data" / "card-parallelix-demo.json"
"""Of the demonstration model on two cores, by `parallelix-node models calibrate`."""
PARTS = REPOSITORY / "reports" / "audit-report"
COST_SHARE_MAX = 0.05
HONEST_BOUND_MAX = 0.001
GPU = "GPU"
"""What the promise is held to; cards show what it would be on other machines."""
LAZY = ("lazy_auditor", "lazy_small_auditor")


class Cost(msgspec.Struct, frozen=True, kw_only=True):
    """Audits' compute time by the work's, at the floor; `anew` where a runtime reads each prefix from its beginning."""

    prefill_ms_per_token: float
    decode_ms_per_token: float
    share: float
    share_anew: float


class Community(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of population. `removed_within` is in units of the cheats, or in minutes where they are benched."""

    runs: int
    cheats: int
    removed: int
    removed_within: dict[str, float | None]
    bad: int
    bad_accepted: int
    honest_removed: int


class Populations(msgspec.Struct, frozen=True, kw_only=True):
    honest_runs: int
    honest_requests: int
    honest_nodes_removed: int
    honest_overturned: int
    with_cheats: dict[str, Community]
    requests: int
    audits: int
    unaudited: int
    not_completed: int
    same_owner_pairs: int
    audits_out_of_place: int


class Results(msgspec.Struct, frozen=True, kw_only=True):
    cheats: dict[str, Caught]
    auditors: dict[str, Caught]
    honest: Acquitted
    cost_share: float
    cost: dict[str, Cost]
    auc_executor: float
    auc_auditor: float
    executor: Indistinct
    auditor: Indistinct
    populations: Populations
    seconds: float

    def shortfalls(self) -> list[str]:
        """What was promised and is not there."""
        found = [
            f"{name}: {each.share:.3f} removed within {each.within}"
            for name, each in self.cheats.items()
            if not each.reached
        ]
        whole = self.populations
        checks = {
            f"honest: {self.honest.convicted} convicted, bound {self.honest.ci95[1]:.4f}": self.honest.convicted == 0,
            f"cost share {self.cost_share:.3f}, at most {COST_SHARE_MAX}": self.cost_share <= COST_SHARE_MAX,
            f"executors tell by {self.auc_executor:.3f}": self.auc_executor <= visible.AUC_MAX,
            f"auditors tell by {self.auc_auditor:.3f}": self.auc_auditor <= visible.AUC_MAX,
            f"{whole.honest_nodes_removed} honest nodes removed in populations of honest ones": (
                whole.honest_nodes_removed == 0
            ),
            f"{whole.same_owner_pairs} pairs of one owner": whole.same_owner_pairs == 0,
            f"{whole.audits_out_of_place} audits that no draw explains, or draws without": whole.audits_out_of_place
            == 0,
        }
        return [*found, *(text for text, holds in checks.items() if not holds)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.audit_report", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--card", type=Path, action="append", default=[CARD], help="one more to weigh costs by")
    parser.add_argument("--anew", action="store_true", help="do not take up what an interrupted run has left")
    parser.add_argument("--write-docs", action="store_true", help="also write the curves and their plot")
    parser.add_argument("--report", type=Path, default=Path("reports/audit-report.json"))
    options = parser.parse_args(arguments)
    report = Report("audit-report", " ".join(("python -m bench.audit_report", *arguments)), seed=options.seed)
    parts = None if options.anew else PARTS / fingerprint()
    results, controls = measure(
        WHOLE, seed=options.seed, workers=options.workers, parts=parts, cards=_cards(options.card), say=_progress()
    )
    for name, caught in controls.items():
        report.control(name, caught)
    code = report.write(options.report, results, passed=not results.shortfalls())
    print(table(results, controls))
    if options.write_docs:
        write_docs(results)
    return code


def measure(
    sizes: Sizes, *, seed: int, workers: int, parts: Path | None, cards: Mapping[str, Card], say: Progress
) -> tuple[Results, dict[str, bool]]:
    """All of it, and the controls with whether they were noticed."""
    begun = time.monotonic()
    made = run_all(case_jobs(sizes, seed), workers=workers, parts=parts, said=say)
    pools = pools_of(_by_cast(made), seed)
    jobs = [*life_jobs(sizes, pools, seed), *engine_jobs(sizes, seed)]
    done = run_all(jobs, workers=workers, parts=parts, said=say)
    seconds = round(time.monotonic() - begun, 1)
    results = results_of(done, sizes, pools, cards, seconds)
    return results, {name: done[f"control: {name}"] for name in CONTROLS}


def _by_cast(made: Mapping[str, list[Case]]) -> dict[str, list[Case]]:
    def parts_of(name: str) -> list[Case]:
        first = f"audits of {name}"
        return [case for job, each in sorted(made.items()) if job == first or job[:-2] == first for case in each]

    return {name: parts_of(name) for name in CASTS}


# Results ------------------------------------------------------------------------------------------------------------


def results_of(
    done: Mapping[str, Any], sizes: Sizes, pools: Pools, cards: Mapping[str, Card], seconds: float
) -> Results:
    lives: list[Life] = [life for part in range(HONEST_PARTS) for life in done[f"honest lives {part + 1}"]]
    honest = [done[f"honest population {number + 1}"] for number in range(sizes.honest_communities)]
    cost = costs(honest, cards)
    executor: Indistinct = done["what executors see"]
    auditor: Indistinct = done["what auditors see"]
    return Results(
        cheats={each.name: _caught(each, done, sizes) for each in variations()},
        auditors={
            name: verdict_runs.caught(
                done[f"lives of {name}"], within=FULL_TIME_WITHIN, units="audits", units_max=sizes.units_max
            )
            for name in LAZY
        },
        honest=verdict_runs.acquitted(lives, pools.honest, requests=sizes.honest_requests),
        cost_share=cost[GPU].share,
        cost=cost,
        auc_executor=round(executor.auc, 4),
        auc_auditor=round(auditor.auc, 4),
        executor=executor,
        auditor=auditor,
        populations=_populations(done, honest, sizes),
        seconds=seconds,
    )


def _caught(variation: Variation, done: Mapping[str, Any], sizes: Sizes) -> Caught:
    return verdict_runs.caught(
        done[f"lives of {variation.name}"],
        within=variation.within,
        units_max=sizes.units_max,
        promised=variation.promised,
    )


def costs(honest: Sequence[HonestPlayed], cards: Mapping[str, Card]) -> dict[str, Cost]:
    """By the name of whose times weigh it: those of a middling GPU, which the populations run at, and of each card."""
    work, audits = Effort(), Effort()
    for each in honest:
        work, audits = work.plus(_effort(each.work)), audits.plus(_effort(each.audits))
    weights = {GPU: (PREFILL_MS_PER_TOKEN, DECODE_MS_PER_TOKEN)}
    weights |= {name: (card.prefill_ms_per_token, card.decode_ms_per_token) for name, card in cards.items()}
    return {name: _cost(work, audits, *weight) for name, weight in weights.items()}


def _effort(numbers: tuple[int, int, int, int]) -> Effort:
    units, read, read_anew, written = numbers
    return Effort(units=units, read=read, read_anew=read_anew, written=written)


def _cost(work: Effort, audits: Effort, prefill_ms: float, decode_ms: float) -> Cost:
    whole_ms = work.ms(prefill_ms, decode_ms) or math.inf
    return Cost(
        prefill_ms_per_token=prefill_ms,
        decode_ms_per_token=decode_ms,
        share=audits.ms(prefill_ms, decode_ms) / whole_ms,
        share_anew=audits.ms(prefill_ms, decode_ms, anew=True) / whole_ms,
    )


def _populations(done: Mapping[str, Any], honest: Sequence[HonestPlayed], sizes: Sizes) -> Populations:
    by_name: dict[str, list[Played]] = {
        name: [done[f"population with {name} {number + 1}"] for number in range(sizes.communities)]
        for name in COMMUNITIES
    }
    everything = [*(each.played for each in honest), *(each for row in by_name.values() for each in row)]
    return Populations(
        honest_runs=len(honest),
        honest_requests=sum(each.played.requests for each in honest),
        honest_nodes_removed=sum(each.played.honest_removed for each in honest),
        honest_overturned=sum(each.good_overturned for each in everything),
        with_cheats={name: _community(name, row) for name, row in by_name.items()},
        requests=sum(each.requests for each in everything),
        audits=sum(each.audits for each in everything),
        unaudited=sum(each.unaudited for each in everything),
        not_completed=sum(each.not_completed for each in everything),
        same_owner_pairs=sum(each.same_owner_pairs for each in everything),
        audits_out_of_place=sum(each.audits_out_of_place for each in everything),
    )


def _community(name: str, row: Sequence[Played]) -> Community:
    cheats = len(COMMUNITIES[name].cheats)
    removed = [units for each in row for units in each.removed.values()]
    everybody = [*removed, *([math.inf] * (cheats * len(row) - len(removed)))]
    return Community(
        runs=len(row),
        cheats=cheats,
        removed=len(removed),
        removed_within={
            share_name: verdict_runs.finite(intervals.quantile(everybody, share))
            for share_name, share in verdict_runs.QUANTILES.items()
        },
        bad=sum(each.bad for each in row),
        bad_accepted=sum(each.bad_accepted for each in row),
        honest_removed=sum(each.honest_removed for each in row),
    )


# For people ---------------------------------------------------------------------------------------------------------


class Progress:
    """Says after each job how far the run is; a run of many minutes must not look dead."""

    def __init__(self) -> None:
        self._begun = time.monotonic()

    def __call__(self, name: str, done: int, whole: int) -> None:
        print(f"{time.monotonic() - self._begun:6.0f} s  {done:3} of {whole}  {name}", flush=True)


class Silence(Progress):
    def __call__(self, name: str, done: int, whole: int) -> None:
        pass


def _progress() -> Progress:
    return Progress()


def table(results: Results, controls: Mapping[str, bool]) -> str:
    """At most 80 columns."""
    lines = [f"{'cheat':<40}{'p50':>5}{'p90':>5}{'p99':>5}  {'within':<8}{'95 %'}"]
    for name, each in (*results.cheats.items(), *results.auditors.items()):
        lines.append(_row(name, each))
    lines += ["", f"{'population on the engine':<38}{'removed':>9}{'p50':>7}{'bad kept':>11}{'honest':>9}"]
    for name, each in results.populations.with_cheats.items():
        removed, kept = f"{each.removed}/{each.cheats * each.runs}", f"{each.bad_accepted}/{each.bad}"
        lines.append(f"{name:<38}{removed:>9}{_units(each.removed_within['p50']):>7}{kept:>11}{each.honest_removed:>9}")
    honest, whole = results.honest, results.populations
    lines += [
        "",
        f"honest: {honest.convicted} of {honest.runs:,} lives of {honest.requests:,} requests convicted"
        f" (95 %: at most {100 * honest.ci95[1]:.2f} %)",
        f"honest populations: {whole.honest_nodes_removed} nodes removed in {whole.honest_runs} of 20 nodes",
        f"pairs of one owner: {whole.same_owner_pairs}; audits that no draw explains: {whole.audits_out_of_place}",
    ]
    for name, cost in results.cost.items():
        lines.append(
            f"cost, {name}: {100 * cost.share:.1f} %; {100 * cost.share_anew:.1f} % where prefixes are read anew"
        )
    for who, seen in (("executor", results.executor), ("auditor", results.auditor)):
        low, high = seen.ci95
        lines.append(f"{who} tells by an area of {seen.auc:.3f} ({low:.3f} to {high:.3f}), {seen.examples:,} units")
    lines += [f"control {'caught' if caught else 'MISSED'}: {name}" for name, caught in controls.items()]
    lines += [f"NOT REACHED: {each}" for each in results.shortfalls()]
    return "\n".join(lines)


def _row(name: str, each: Caught) -> str:
    numbers = "".join(f"{_units(each.removed_within[share]):>5}" for share in verdict_runs.QUANTILES)
    low, high = each.ci95
    share = f"{100 * each.share:.1f} %"
    return f"{name:<40}{numbers}  {share:<8}{100 * low:.1f} to {100 * high:.1f}"


def _units(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _cards(paths: Sequence[Path]) -> dict[str, Card]:
    return {path.stem: decode_card(path.read_bytes()) for path in paths}


def fingerprint() -> str:
    """Of all that decides the outcome, so that no run goes on with parts of another version's."""
    told = hashlib.sha256()
    for folder in ("src/parallelix/engine", "src/parallelix/protocol", "src/parallelix/coordinator", "bench"):
        for path in sorted((REPOSITORY / folder).glob("*.py")):
            told.update(path.name.encode() + path.read_bytes())
    return told.hexdigest()[:16]


# For the documentation ----------------------------------------------------------------------------------------------

DRAWN = (
    "other_model, settled",
    "truncated, settled",
    "other_model, one in five, settled",
    "truncated, one in five, settled",
    "other_model, one in twenty, settled",
    "quantised, settled",
    "quantised, one in five, settled",
    "colluding 10 %, settled",
    "colluding 30 %, settled",
)


def write_docs(results: Results) -> None:
    CURVES.parent.mkdir(parents=True, exist_ok=True)
    PLOT.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        f'"{name}",{requests},{share:.4f}\n' for name, each in results.cheats.items() for requests, share in each.curve
    ]
    CURVES.write_text("cheat,requests,share_removed\n" + "".join(rows))
    lines = [Line(name=name.removesuffix(", settled"), points=results.cheats[name].curve) for name in DRAWN]
    PLOT.write_text(
        plots.chart(
            "Nodes that begin to cheat at the lowest rate: how many are removed, and when",
            Axis(title="requests since then", low=1, high=10_000, ticks=(1, 10, 90, 459, 1_000, 10_000), log=True),
            Axis(title="share removed", low=0, high=1, ticks=(0, 0.25, 0.5, 0.75, 1)),
            lines,
        )
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
