"""`python -m bench.chain_faults --report reports/chain-faults.json`: kill -9 and reorgs below the network on a chain.

A coordinator with a node at work, on an anvil of its own with all contracts. First the newest blocks are replaced, up
to as many as confirm what is believed, and each time with at least one transaction changed, moved or gone. Then the
coordinator is killed at named points, over and over. Whenever it is dead, and whenever all has come to rest, its store
is held against the contracts to the wei by `bench.chain_books`, which shares no code with it. At the end the records
that it left are exported and edited, and every edit must be noticed.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import random
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.chain_books import Agreement
from bench.chain_controls import live_controls, store_controls
from bench.chain_crashes import CrashRun, closed, crashes
from bench.chain_reorgs import ReorgRun, replace_blocks
from bench.chain_stage import chain_stage, mining
from bench.chain_tamper import TamperRun, tampered
from bench.chain_traffic import Crowd
from bench.chain_world import ChainWorld, chain_world
from parallelix.devnet.report import Report

CYCLES, REORGS, EDITS = 200, 300, 1_000
REST_EVERY = 4
SHOWN_MAX = 20


@dataclass(kw_only=True)
class Run:
    """All that one stage went through."""

    reorgs: ReorgRun = field(default_factory=ReorgRun)
    crash: CrashRun = field(default_factory=CrashRun)
    tamper: TamperRun = field(default_factory=TamperRun)
    controls: list[tuple[str, bool]] = field(default_factory=list[tuple[str, bool]])
    """Faults put into copies of the store that is left, and whether the comparison noticed them."""
    answers: dict[str, int] = field(default_factory=dict[str, int])
    deeds: dict[str, int] = field(default_factory=dict[str, int])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.chain_faults", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--cycles", type=int, default=CYCLES)
    parser.add_argument("--reorgs", type=int, default=REORGS)
    parser.add_argument("--edits", type=int, default=EDITS)
    parser.add_argument("--rest-every", type=int, default=REST_EVERY)
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin no cycle after so many of them")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--report", type=Path, default=Path("reports/chain-faults.json"))
    options = parser.parse_args(arguments)
    report = Report("chain-faults", " ".join(("python -m bench.chain_faults", *arguments)), seed=options.seed)
    with tempfile.TemporaryDirectory(prefix="parallelix-chain-faults-") as name:
        folder = Path(name)
        with chain_world(folder / "chain") as world:
            run = asyncio.run(
                faults(
                    folder / "stage",
                    world,
                    cycles=options.cycles,
                    reorgs=options.reorgs,
                    seed=options.seed,
                    rest_every=options.rest_every,
                    seconds=60 * options.minutes,
                    say=lambda line: print(line, flush=True),
                )
            )
            run.tamper = tampered(world, run.crash.store, options.edits, options.seed)
        controls = [*run.controls, *live_controls(folder / "controls", options.seed)]
    for control, caught in controls:
        report.control(control, caught)
    results = results_of(run)
    whole = run.crash.cycles == options.cycles or options.minutes < math.inf
    code = report.write(options.report, results, passed=passed(run) and whole and run.reorgs.counted == options.reorgs)
    print_summary(results, run, controls)
    return code


async def faults(
    folder: Path,
    world: ChainWorld,
    *,
    cycles: int,
    reorgs: int,
    seed: int,
    rest_every: int,
    seconds: float = math.inf,
    say: Callable[[str], None],
) -> Run:
    """Leaves the tampering to the caller. No cycle of crashes begins after `seconds` of them."""
    run, chance = Run(), random.Random(seed)
    async with chain_stage(folder, world) as stage:
        crowd = Crowd(stage, chance)
        try:
            await replace_blocks(stage, crowd, run.reorgs, reorgs, chance, say=say)
            async with mining(stage):
                await stage.earning()
                await crowd.stop()
            await crashes(stage, crowd, run.crash, cycles, chance, say=say, rest_every=rest_every, seconds=seconds)
            closed(stage, crowd, run.crash)
            run.controls = store_controls(stage, run.crash.store)
            run.answers, run.deeds = dict(crowd.people.answers), dict(crowd.people.deeds.done)
        finally:
            await crowd.aclose()
    return run


def passed(run: Run) -> bool:
    reached = all(result.cycles for result in run.crash.points.values())
    replaced = bool(run.reorgs.agreement) and run.reorgs.counted > 0
    tamper = run.tamper
    noticed = 0 < tamper.edits == tamper.detected and not tamper.false_alarms and tamper.hashes_alone_miss_it
    return run.crash.sound and reached and replaced and noticed


# Report -------------------------------------------------------------------------------------------------------------


def results_of(run: Run) -> dict[str, Any]:
    points = run.crash.points
    return {
        "crash": {
            point: {
                "cycles": result.cycles,
                "duplicate_effects": result.agreement.duplicate_effects,
                "difference_wei": result.agreement.difference_wei,
            }
            for point, result in points.items()
        },
        "reorgs": {
            "count": run.reorgs.counted,
            "head_changed": run.reorgs.head_changed,
            "difference_wei": run.reorgs.agreement.difference_wei,
            "made": run.reorgs.made,
            "compared": run.reorgs.compared,
            "depths": dict(sorted(run.reorgs.depths.items())),
            "fates": dict(run.reorgs.fates),
            "replaced": dict(run.reorgs.replaced),
            "while_dead": run.crash.reorgs_while_dead,
            "seconds": round(run.reorgs.seconds, 1),
        },
        "tamper": {
            "edits": run.tamper.edits,
            "detected": run.tamper.detected,
            "false_alarms": run.tamper.false_alarms,
            "untouched": run.tamper.untouched,
            "records": run.tamper.records,
            "missed_by_hashes_alone": run.tamper.hashes_alone_miss_it,
        },
        "cycles": run.crash.cycles,
        "not_reached": dict(run.crash.unreached),
        "rests": run.crash.rests,
        "acknowledged": run.crash.acknowledged,
        "lost": len(run.crash.findings.lost),
        "charged_twice": len(run.crash.findings.charged_twice),
        "broken": len(run.crash.findings.broken),
        "seconds": round(run.crash.seconds, 1),
        "answers": run.answers,
        "deeds": run.deeds,
        "findings": findings_of(run),
    }


def findings_of(run: Run) -> list[str]:
    agreements: list[tuple[str, Agreement]] = [("reorgs", run.reorgs.agreement), ("at the end", run.crash.agreement)]
    agreements += [(point, result.agreement) for point, result in run.crash.points.items()]
    found = [f"{name}: {finding}" for name, agreement in agreements for finding in agreement.findings]
    audited = run.crash.findings
    return [*found, *run.tamper.missed, *audited.lost, *audited.charged_twice, *audited.broken, *run.crash.restless]


def print_summary(results: dict[str, Any], run: Run, controls: Sequence[tuple[str, bool]]) -> None:
    for name, value in results.items():
        if name != "findings":
            print(f"{name:16} {value}")
    for finding in findings_of(run)[:SHOWN_MAX]:
        print(finding)
    for name, caught in controls:
        print(f"control {'caught' if caught else 'MISSED'}: {name}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
