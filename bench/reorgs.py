"""Reorgs that are really some: at least one transaction comes back changed, in another block, or not at all.

A test node that reorganises blocks without moving a transaction mostly leaves the chain as it was, so each one here is
looked at afterwards, and one that shows nothing does not count.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from bench.chain_world import ChainWorld

DEPTH_MAX = 12
"""As many blocks as confirm what is believed."""
OTHERS = "the coordinator's"
Fate: TypeAlias = Literal["kept", "moved", "changed", "dropped"]
FATES: tuple[Fate, ...] = ("kept", "moved", "changed", "dropped")


@dataclass(frozen=True, kw_only=True)
class Mined:
    """A transaction in a block that is about to go; `offset` counts from the first of these blocks."""

    hash: str
    raw: str
    sender: str
    nonce: int
    offset: int


@dataclass(frozen=True, kw_only=True)
class Placing:
    """What becomes of one of them. `hash`, `raw` and `offset` are those that come back; empty when nothing does."""

    mined: Mined
    fate: Fate
    hash: str = ""
    raw: str = ""
    offset: int = 0


@dataclass(kw_only=True)
class Reorg:
    """One reorg and what it really did, as the chain shows it afterwards."""

    depth: int
    head_changed: bool = False
    fates: Counter[Fate] = field(default_factory=Counter[Fate])
    """Only of those that are where they were meant to be."""
    astray: list[str] = field(default_factory=list[str])
    replaced_calls: list[str] = field(default_factory=list[str])
    """What the replaced ones had called; `OTHERS` where they were not sent from here."""
    dropped: list[str] = field(default_factory=list[str])
    """The bytes of those that came back nowhere."""

    @property
    def replaced(self) -> int:
        return self.fates["moved"] + self.fates["changed"] + self.fates["dropped"]

    @property
    def counts(self) -> bool:
        return self.head_changed and self.replaced > 0


def random_reorg(world: ChainWorld, chance: random.Random, *, depth_max: int = DEPTH_MAX) -> Reorg | None:
    """Replaces the last blocks, deep enough to hold a transaction; None where `depth_max` blocks hold none."""
    head = world.head
    newest_first = reversed(world.blocks(head - depth_max + 1, head))
    depths = [depth for depth, block in enumerate(newest_first, start=1) if block["transactions"]]
    if not depths:
        return None
    depth = chance.randint(depths[0], depth_max)
    return reorganise(world, plan(world, chance, mined_in(world, head - depth + 1, head), depth), depth)


def mined_in(world: ChainWorld, first: int, last: int) -> list[Mined]:
    """In the chain's order."""
    blocks = world.blocks(first, last)
    found = [(offset, each) for offset, block in enumerate(blocks) for each in block["transactions"]]
    raws = world.rpcs([("eth_getRawTransactionByHash", each["hash"]) for _, each in found])
    return [
        Mined(hash=each["hash"], raw=raw, sender=each["from"].lower(), nonce=int(each["nonce"], 16), offset=offset)
        for (offset, each), raw in zip(found, raws, strict=True)
    ]


def plan(world: ChainWorld, chance: random.Random, mined: Sequence[Mined], depth: int) -> list[Placing]:
    """A fate for each, of which at least one is not `kept`."""
    while True:
        by_sender: defaultdict[str, list[Mined]] = defaultdict(list)
        for each in mined:
            by_sender[each.sender].append(each)
        placings = [placing for row in by_sender.values() for placing in _fates(world, chance, row, depth)]
        if any(placing.fate != "kept" for placing in placings):
            return placings


def _fates(world: ChainWorld, chance: random.Random, row: Sequence[Mined], depth: int) -> Iterable[Placing]:
    """Those of one sender, whose order is bound by their nonces: after one that is dropped none comes."""
    earliest, dropped = 0, False
    for mined in row:
        fate: Fate = "dropped" if dropped else chance.choice(FATES)
        sent = world.sent.get(mined.hash)
        if fate == "changed" and (sent is None or sent.instead is None):
            fate = "moved"
        dropped = fate == "dropped"
        if dropped:
            yield Placing(mined=mined, fate="dropped")
            continue
        offset = max(earliest, mined.offset)
        if fate == "moved":
            offset = chance.randint(earliest, depth - 1)
        if fate != "changed":
            fate = "kept" if offset == mined.offset else "moved"
        hash_, raw = (mined.hash, mined.raw)
        if fate == "changed":
            assert sent is not None and sent.instead is not None
            hash_, raw = sent.instead
        earliest = offset
        yield Placing(mined=mined, fate=fate, hash=hash_, raw=raw, offset=offset)


def reorganise(world: ChainWorld, placings: Sequence[Placing], depth: int) -> Reorg:
    """Lets other blocks take the place of the last `depth`, and looks at what that changed."""
    head = world.head
    first, head_hash = head - depth + 1, world.block(head)["hash"]
    back = sorted((each for each in placings if each.raw), key=lambda each: (each.offset, each.mined.nonce))
    world.rpc("anvil_reorg", depth, [[each.raw, each.offset] for each in back])
    reorg = Reorg(depth=depth, head_changed=world.block(head)["hash"] != head_hash)
    for each in placings:
        if _as_meant(world, each, first):
            reorg.fates[each.fate] += 1
            if each.fate != "kept":
                sent = world.sent.get(each.mined.hash)
                reorg.replaced_calls.append(sent.what if sent else OTHERS)
            if each.fate == "dropped":
                reorg.dropped.append(each.mined.raw)
        else:
            reorg.astray.append(f"{each.mined.hash}: not {each.fate}")
    return reorg


def _as_meant(world: ChainWorld, placing: Placing, first: int) -> bool:
    if placing.fate in ("changed", "dropped") and world.place(placing.mined.hash) is not None:
        return False
    return not placing.hash or world.place(placing.hash) == first + placing.offset
