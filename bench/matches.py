"""How long the scheduler takes to find a node and to reserve its slot, by the number of nodes.

The nodes are of four tiers, with three models in different pairs and two context lengths; all have been measured, and
most slots are taken, as in a network that is busy. (Where a newcomer is free it is taken first, which is quicker.)
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bench.stopwatch import median
from parallelix.engine.pool import Need, Node, Pool
from parallelix.engine.settings import EngineSettings
from parallelix.protocol import messages
from parallelix.protocol.registry import MINIMUM_STAKE_WEI, Registration

WORKLOAD_CLASS = "ai.inference"
DIGESTS = tuple(f"{index:064x}" for index in range(3))
CONTEXTS = (8192, 32768)
TIERS = (1, 2, 3, 4)
SLOTS = 2
TAKEN = 0.6
"""The share of the slots that is taken when the measurement begins."""
BATCH = 200
FEATURES = ("chat", "logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Matching:
    """Microseconds: a match with its reservation, the release, and finding that every capable node is busy."""

    match_us: float
    release_us: float
    busy_us: float


def measure(nodes: int, *, seed: int = 1, batches: int = 20) -> Matching:
    """Times batches of matches on a pool of `nodes` nodes, and gives the medians."""
    draw = random.Random(seed)
    pool = build(nodes, draw)
    needs = [some_need(draw) for _ in range(BATCH)]
    matches, releases = list[float](), list[float]()
    for batch in range(batches):
        found, microseconds = timed_matches(pool, needs, batch)
        matches.append(microseconds)
        started = time.perf_counter()
        for node, attempt_id in found:
            pool.release(node, attempt_id)
        releases.append((time.perf_counter() - started) / len(found) * 1e6)
    fill(pool)
    busy = [_each_us(lambda: [pool.match(need, frozenset()) for need in needs], len(needs)) for _ in range(3)]
    return Matching(match_us=median(matches), release_us=median(releases), busy_us=median(busy))


def timed_matches(pool: Pool, needs: Sequence[Need], batch: int) -> tuple[list[tuple[Node, str]], float]:
    """Who was reserved, and microseconds for each."""
    found: list[tuple[Node, str]] = []
    started = time.perf_counter()
    for number, need in enumerate(needs):
        node = pool.match(need, frozenset())
        if node is not None:
            attempt_id = f"att_{batch}_{number}"
            pool.reserve(node, attempt_id)
            found.append((node, attempt_id))
    elapsed = time.perf_counter() - started
    assert found, "a pool with free slots matched nothing"
    return found, elapsed / len(needs) * 1e6


def scan_us(nodes: int, *, seed: int = 1) -> float:
    """Microseconds of a match that looks at every node: what the index is there to avoid."""
    draw = random.Random(seed)
    pool = build(nodes, draw)
    needs = [some_need(draw) for _ in range(5)]

    def scan(need: Need) -> Node | None:
        free = (node for node in pool.nodes.values() if node.slots_free > 0 and node.tier >= need.tier)
        return min(free, key=lambda node: (node.tier, node.node_id), default=None)

    return _each_us(lambda: [scan(need) for need in needs], len(needs))


def build(nodes: int, draw: random.Random) -> Pool:
    pool = Pool(EngineSettings(chain_id=1), DIGESTS)
    for node_id in range(1, nodes + 1):
        node = _node(node_id, draw)
        pool.put(node)
        for taken in range(SLOTS):
            if draw.random() < TAKEN:
                pool.reserve(node, f"att_before_{taken}")
    return pool


def fill(pool: Pool) -> None:
    """Takes every slot that is free."""
    for node in pool.nodes.values():
        for slot in range(node.slots_free):
            pool.reserve(node, f"att_full_{slot}")


def some_need(draw: random.Random) -> Need:
    return Need(
        workload_class=WORKLOAD_CLASS,
        digests=(draw.choice(DIGESTS),),
        tier=draw.choice(TIERS),
        context_tokens=draw.choice((2048, 16384)),
        features=frozenset(("chat",)),
        tokens=draw.randrange(64, 2048),
        deadline_ms=120_000,
    )


def _node(node_id: int, draw: random.Random) -> Node:
    tier, context, digests = draw.choice(TIERS), draw.choice(CONTEXTS), draw.sample(DIGESTS, 2)
    return Node(
        node_id=node_id,
        session=f"{node_id:032x}",
        manifest=_manifest(node_id, tier, context, digests),
        manifest_json="",
        public_key="",
        issued_at=1,
        attached_at=1,
        registration=Registration(
            node_id=str(node_id),
            owner=f"0x{node_id:040x}",
            stake_wei=str(MINIMUM_STAKE_WEI),
            hardware_tier=tier,
            node_key_hash=f"0x{node_id:064x}",
            state="active",
        ),
        online=True,
        speeds={digest: draw.lognormvariate(3.5, 0.7) for digest in digests},
    )


def _manifest(node_id: int, tier: int, context: int, digests: Sequence[str]) -> messages.Manifest:
    return messages.Manifest(
        node_id=str(node_id),
        chain_id=1,
        mode="cpu",
        hardware_tier=tier,
        hardware=messages.Hardware(cpu_cores=8),
        workload_classes=(WORKLOAD_CLASS,),
        runtimes=(),
        models=tuple(
            messages.ModelInfo(name=digest[-4:], digest=digest, context_tokens=context, features=FEATURES)
            for digest in digests
        ),
        slots=SLOTS,
        envelope_key="",
        poe_key="",
        client_version="bench",
        issued_at=1,
        run_id="bench",
    )


def _each_us(work: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    work()
    return (time.perf_counter() - started) / count * 1e6
