"""`python -m bench.real_cheats`: how far apart honest nodes are, and how each cheat shows, with real models.

The demonstration model in llama.cpp and in a real Ollama, each auditing itself and the other, over prompts that it was
not trained on: chats and completions, greedy and at three temperatures, answers of 1 to 48 tokens. Two arms are honest:
the same file, and the same weights in other arithmetic, which stands for another processor. Writes what docs/audits.md
shows: `docs/data/real-models.json`, two tables beside it, and two plots.
"""

from __future__ import annotations

import argparse
import asyncio
import csv
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec

from bench import real_models
from bench.intervals import at_most, clopper_pearson, quantile
from bench.plots import Axis, Line, chart
from bench.real_models import CHEATS, FOUR_BITS, HONEST_FILE, MODELS, OTHER_FILE, Cheat, Place, Task
from parallelix.node.runtimes.llama_cpp import LlamaCpp
from parallelix.node.runtimes.ollama import Ollama
from parallelix.protocol import spot_check
from parallelix.protocol.calibration import DEFAULT_CARD, SPREAD_POSITIONS, peak_threshold, spreads_of, threshold
from parallelix.protocol.spot_check import Finding

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests"), str(MODELS)]

from quantise import quantise  # noqa: E402

import services  # noqa: E402

SAME_FILE, OTHER_ARITHMETIC = "honest, same file", "honest, other arithmetic"
HONEST = (SAME_FILE, OTHER_ARITHMETIC)
THIRTY_TWO_BITS = "thirty-two-bits"
TEMPERATURES = (0.0, None, 1.0, 1.5)
FAR_OFF = ("outliers", "distance", "peak")
"""Honest answers that were read again otherwise than they were written: counted, and no measure of arithmetic."""
LENGTHS = ((1, 8), (9, 16), (17, 32), (33, 48))
QUANTILES = (*(share / 100 for share in range(1, 100)), 0.995, 0.999, 1.0)
DATA = REPOSITORY / "docs" / "data"
DISTANCES_PLOT = REPOSITORY / "docs" / "images" / "audit-distances.svg"
ROC_PLOT = REPOSITORY / "docs" / "images" / "audit-roc.svg"


class Audit(msgspec.Struct, frozen=True, kw_only=True):
    """One comparison of an executor's answer with an auditor's."""

    arm: str
    executor: str
    auditor: str
    kind: str
    temperature: float | None
    entries: int
    finding: Finding
    distances: tuple[float, ...]
    decoded: int
    """Tokens that the auditor predicted."""

    @property
    def score(self) -> float:
        """How far beyond what is allowed: above 1 it disagrees. Infinite where the tokens themselves convict."""
        if self.finding.outcome == "disagree" and self.finding.reason not in ("distance", "peak"):
            return math.inf
        if not self.distances or self.finding.reason == "outliers":
            return 0.0
        mean = self.finding.distance / threshold(DEFAULT_CARD, len(self.distances))
        return max(mean, max(self.distances) / peak_threshold(DEFAULT_CARD))


@asynccontextmanager
async def places(folder: Path) -> AsyncGenerator[tuple[Place, Place]]:
    """The demonstration models and their variants in llama.cpp and in an Ollama of our own."""
    template = (MODELS / "Modelfile").read_text(encoding="utf-8").split('TEMPLATE """')[1].split('"""')[0]
    made = [
        quantise(HONEST_FILE, folder / f"{name}.gguf", bits=bits)
        for name, bits in ((FOUR_BITS, 4), (THIRTY_TWO_BITS, 32))
    ]
    files = [HONEST_FILE, OTHER_FILE, *made]
    with services.ollama() as server:
        for file in files:
            # One thread each: two that wait for one another are a hundred times slower where a core is taken.
            server.create_model(file.stem, file, template=template, num_thread=1)
        llama_cpp = LlamaCpp(files, 1, threads=1, models_loaded_max=len(files))
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=None) as http:
                yield Place(runtime=llama_cpp), Place(runtime=Ollama(server.url, http))
        finally:
            await llama_cpp.aclose()


async def other_arithmetic(place: Place, task: Task, chance: random.Random) -> spot_check.Claim:
    """The same weights, unpacked to 32 bits: other sums of the same numbers, as on another processor."""
    return await real_models.honest(replace(place, honest=THIRTY_TWO_BITS), task, chance)


ARMS: dict[str, Cheat] = {SAME_FILE: real_models.honest, OTHER_ARITHMETIC: other_arithmetic, **CHEATS}


async def audit_all(
    arm: str,
    executors: Iterable[Place],
    auditors: Sequence[Place],
    asked: Sequence[Task],
    *,
    seed: int,
) -> list[Audit]:
    done: list[Audit] = []
    for executor in executors:
        chance = random.Random(seed)
        for task in asked:
            claim = await ARMS[arm](executor, task, chance)
            probes = spot_check.choose_probes(claim, chance.randbytes)
            for auditor in auditors:
                if probes is None:
                    finding, apart = Finding(outcome="unusable", reason="not_probed"), ()
                else:
                    answer = await real_models.audited(auditor, task, probes)
                    finding = spot_check.compare(claim, probes, answer, DEFAULT_CARD)
                    apart = spot_check.distances(claim, probes, answer)
                done.append(
                    Audit(
                        arm=arm,
                        executor=executor.name,
                        auditor=auditor.name,
                        kind=task.kind,
                        temperature=task.temperature,
                        entries=len(claim.entries),
                        finding=finding,
                        distances=apart,
                        decoded=0 if probes is None else len(probes.positions),
                    )
                )
    return done


def measure_real_models(
    *, audits: int = 400, seed: int = 1, say: Callable[[str], None] = lambda line: None
) -> dict[str, Any]:
    """`audits` answers an executor for each honest arm, a quarter of it for each cheat; each is audited in both
    runtimes. Ready for JSON; `summary_of` says what is in it."""
    return summary_of(asyncio.run(_measured(audits, seed, say)), audits=audits, seed=seed)


async def _measured(audits: int, seed: int, say: Callable[[str], None]) -> list[Audit]:
    done: list[Audit] = []
    with tempfile.TemporaryDirectory(prefix="parallelix-real-models-") as name:
        async with places(Path(name)) as both:
            for arm in ARMS:
                began = time.monotonic()
                count = audits if arm in HONEST else max(4, audits // 4)
                asked = real_models.tasks(count, seed, temperatures=TEMPERATURES)
                found = await audit_all(arm, both, both, asked, seed=seed)
                done += found
                disagreed = sum(each.finding.outcome == "disagree" for each in found)
                say(f"{arm}: {disagreed} of {len(found)} audits disagree ({time.monotonic() - began:.0f} s)")
    return done


def summary_of(done: Sequence[Audit], *, audits: int, seed: int) -> dict[str, Any]:
    by_arm = {arm: [each for each in done if each.arm == arm] for arm in ARMS}
    honest = [each for arm in HONEST for each in by_arm[arm]]
    disagreed = sum(each.finding.outcome == "disagree" for each in honest)
    positions = sum(each.finding.usable + each.finding.unusable for each in honest)
    return {
        "command": f"python -m bench.real_cheats --audits {audits} --seed {seed}",
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "honest": {
            "audits": len(honest),
            "disagreed": disagreed,
            "false_reject_share_at_most": at_most(disagreed, len(honest)),
            "positions": positions,
            "unusable_share": sum(each.finding.unusable for each in honest) / max(1, positions),
            "spreads": msgspec.to_builtins(
                spreads_of([each.distances for each in honest if each.finding.reason not in FAR_OFF])
            ),
            "thresholds": {str(number): threshold(DEFAULT_CARD, number) for number in SPREAD_POSITIONS},
            "peak_threshold": peak_threshold(DEFAULT_CARD),
        },
        "arms": [_arm(arm, found) for arm, found in by_arm.items()],
        "roc": {arm: roc(honest, found) for arm, found in by_arm.items() if arm not in HONEST},
        "distances": {arm: _curve(found) for arm, found in by_arm.items()},
    }


def roc(honest: Sequence[Audit], cheat: Sequence[Audit]) -> list[tuple[float, float]]:
    """(share of honest audits, share of the cheat's) that disagree, as the thresholds are scaled up and down."""
    wrong, right = [each.score for each in honest], [each.score for each in cheat]
    cuts = sorted({score for score in (*wrong, *right) if math.isfinite(score)}, reverse=True)
    points = [
        (sum(score > cut for score in wrong) / len(wrong), sum(score > cut for score in right) / len(right))
        for cut in cuts
    ]
    corners = [point for number, point in enumerate(points) if number == 0 or point[0] != points[number - 1][0]]
    return [*corners, (1.0, 1.0)]


def _arm(arm: str, found: Sequence[Audit]) -> dict[str, Any]:
    disagreed = sum(each.finding.outcome == "disagree" for each in found)
    return {
        "arm": arm,
        "audits": len(found),
        "disagreed": disagreed,
        "share": disagreed / len(found),
        "share_between": clopper_pearson(disagreed, len(found)),
        "unusable": sum(each.finding.outcome == "unusable" for each in found),
        "reasons": dict(Counter(each.finding.reason for each in found if each.finding.reason)),
        "share_by_tokens": {f"{low} to {high}": _share(found, low, high) for low, high in LENGTHS},
        "pairs": {
            f"{executor}, audited in {auditor}": _largest(found, executor, auditor)
            for executor, auditor in sorted({(each.executor, each.auditor) for each in found})
        },
    }


def _share(found: Sequence[Audit], low: int, high: int) -> dict[str, int]:
    within = [each for each in found if low <= each.entries <= high]
    return {"audits": len(within), "disagreed": sum(each.finding.outcome == "disagree" for each in within)}


def _largest(found: Sequence[Audit], executor: str, auditor: str) -> dict[str, float]:
    pair = [each for each in found if (each.executor, each.auditor) == (executor, auditor)]
    return {
        "largest_mean": max(each.finding.distance for each in pair),
        "largest_at_one_position": max((apart for each in pair for apart in each.distances), default=0.0),
    }


def _curve(found: Sequence[Audit]) -> list[tuple[float, float]]:
    distances = [each.finding.distance for each in found if each.distances]
    return [(quantile(distances, share), share) for share in QUANTILES] if distances else []


def write(summary: dict[str, Any]) -> list[Path]:
    """The tables and plots of docs/audits.md; returns what was written."""
    DATA.mkdir(exist_ok=True)
    DISTANCES_PLOT.parent.mkdir(exist_ok=True)
    data = DATA / "real-models.json"
    plain: dict[str, Any] = json.loads(json.dumps(summary), parse_float=lambda text: float(f"{float(text):.5g}"))
    shown = {key: value for key, value in plain.items() if key not in ("roc", "distances")}
    data.write_bytes(msgspec.json.format(msgspec.json.encode(shown), indent=2) + b"\n")
    tables = [
        _table(DATA / "real-distances.csv", ("arm", "distance", "share_of_audits_at_most"), plain["distances"]),
        _table(DATA / "real-roc.csv", ("arm", "honest_share", "cheat_share"), plain["roc"]),
    ]
    DISTANCES_PLOT.write_text(distances_chart(plain), encoding="utf-8")
    ROC_PLOT.write_text(roc_chart(plain), encoding="utf-8")
    return [data, *tables, DISTANCES_PLOT, ROC_PLOT]


def _table(path: Path, head: Sequence[str], curves: dict[str, list[tuple[float, float]]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(head)
        table.writerows((arm, *point) for arm, points in curves.items() for point in points)
    return path


def distances_chart(summary: dict[str, Any]) -> str:
    across = Axis(
        title="mean distance over the usable positions", low=1e-4, high=1, ticks=(1e-4, 1e-3, 1e-2, 0.1, 1), log=True
    )
    up = Axis(title="share of audits at most so far apart", low=0, high=1, ticks=(0, 0.25, 0.5, 0.75, 1))
    lines = [Line(name=arm, points=points) for arm, points in summary["distances"].items()]
    allowed = summary["honest"]["thresholds"][str(SPREAD_POSITIONS[-1])]
    lines.append(Line(name=f"threshold, {SPREAD_POSITIONS[-1]} or more", points=((allowed, 0.0), (allowed, 1.0))))
    return chart("How far apart executor and auditor are", across, up, lines)


def roc_chart(summary: dict[str, Any]) -> str:
    lowest = 1 / summary["honest"]["audits"]
    ticks = tuple(tick for tick in (1e-4, 1e-3, 1e-2, 0.1, 1.0) if tick >= lowest)
    across = Axis(title="share of honest audits that disagree", low=lowest, high=1, ticks=ticks, log=True)
    up = Axis(title="share of the cheat's audits that disagree", low=0, high=1, ticks=(0, 0.25, 0.5, 0.75, 1))
    lines = [Line(name=arm, points=points) for arm, points in summary["roc"].items()]
    return chart("What one audit tells, as thresholds are moved", across, up, lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--audits", type=int, default=400, help="answers of each executor in an honest arm")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    summary = measure_real_models(audits=options.audits, seed=options.seed, say=print)
    for path in write(summary):
        print(path.relative_to(REPOSITORY))
    honest = summary["honest"]
    print(f"honest: {honest['disagreed']} of {honest['audits']} disagree; unusable {honest['unusable_share']:.2%}")


if __name__ == "__main__":
    main()
