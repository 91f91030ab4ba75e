"""The registry file: read once, watched after, and never half believed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from parallelix.coordinator.ports import RegistryChanges, RegistryUnreadable
from parallelix.coordinator.registry_file import RegistryFile, difference, parse
from parallelix.protocol.registry import MINIMUM_STAKE_WEI

POLL_SECONDS = 0.01


def entry(node_id: int = 1, **changes: Any) -> dict[str, Any]:
    plain = {
        "node_id": str(node_id),
        "owner": "0x" + "a" * 40,
        "stake_wei": str(MINIMUM_STAKE_WEI),
        "hardware_tier": 1,
        "node_key_hash": f"0x{node_id:064x}",
        "state": "active",
        "cooldown_ends_at": 0,
    }
    return {**plain, **changes}


def written(*entries: dict[str, Any]) -> bytes:
    return json.dumps(entries).encode()


class Scene:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "registry.json"
        self.complaints: list[str] = []
        self.registry = RegistryFile(self.path, poll_seconds=POLL_SECONDS, unreadable=self.complaints.append)

    def write(self, data: bytes) -> None:
        """As an editor saves: a new file takes the old one's place."""
        new = self.path.with_suffix(".new")
        new.write_bytes(data)
        new.replace(self.path)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def next_change(scene: Scene) -> RegistryChanges:
    return await anext(aiter(scene.registry.changes()))


async def test_nobody_is_registered_while_there_is_no_file(scene: Scene) -> None:
    assert await scene.registry.load() == ()


async def test_an_edit_is_seen_as_what_changed_and_who_left(scene: Scene) -> None:
    scene.write(written(entry(1), entry(2), entry(3)))
    assert len(await scene.registry.load()) == 3
    scene.write(written(entry(1), entry(2, state="cooling", cooldown_ends_at=99), entry(4)))
    changes = await next_change(scene)
    assert [(each.node_id, each.state) for each in changes.registrations] == [("2", "cooling"), ("4", "active")]
    assert changes.removed == (3,)


async def test_a_file_that_goes_away_removes_everybody(scene: Scene) -> None:
    scene.write(written(entry(1)))
    await scene.registry.load()
    scene.path.unlink()
    assert (await next_change(scene)).removed == (1,)


async def test_an_edit_that_cannot_be_read_changes_nothing_and_is_told_once(scene: Scene) -> None:
    scene.write(written(entry(1)))
    await scene.registry.load()
    scene.write(b'[{"node_id": "1"')
    changing = asyncio.create_task(next_change(scene))
    while not scene.complaints:
        await asyncio.sleep(POLL_SECONDS)
    await asyncio.sleep(3 * POLL_SECONDS)
    assert not changing.done()
    scene.write(written(entry(1, hardware_tier=2)))
    changes = await changing
    assert ([each.hardware_tier for each in changes.registrations], changes.removed) == ([2], ())
    assert len(scene.complaints) == 1 and str(scene.path) in scene.complaints[0]


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"[{", "truncated"),
        (b"\xff\xfe", "registry"),
        (b"[" * 100_000, "registry"),
        (b"{}", "Expected `array`"),
        (written({**entry(), "node_id": 1}), "node_id"),
        (written({**entry(), "node_id": "01"}), "node_id"),
        (written(entry(stake_wei="1e24")), "stake_wei"),
        (written(entry(hardware_tier=5)), "hardware_tier"),
        (written(entry(state="slashed")), "state"),
        (written(entry(node_key_hash="0xAB")), "node_key_hash"),
        (written(entry(1), entry(1)), "node 1 is listed twice"),
        (written(entry(1, stake_wei=str(MINIMUM_STAKE_WEI - 1))), f"at least {MINIMUM_STAKE_WEI}"),
        (written(entry(1), entry(2, node_key_hash=f"0x{1:064x}")), "nodes 1 and 2 share one key"),
    ],
)
def test_what_is_no_registry_is_refused_by_name(data: bytes, complaint: str) -> None:
    with pytest.raises(RegistryUnreadable, match=complaint):
        parse(data)


def test_a_retired_node_may_have_unstaked_and_passed_its_key_on() -> None:
    retired = entry(1, state="retired", stake_wei="0", node_key_hash=f"0x{2:064x}")
    assert parse(written(retired, entry(2))).keys() == {1, 2}


def test_equal_registries_differ_in_nothing() -> None:
    registrations = parse(written(entry(1), entry(2)))
    assert difference(registrations, dict(reversed(registrations.items()))) == RegistryChanges()
