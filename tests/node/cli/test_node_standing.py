"""`status` tells what the network says of the node, also when no daemon runs; else what was heard last, and when."""

from __future__ import annotations

import json
import time
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import msgspec
import node_worlds
import pytest
from node_scene import Operate, matches_schema

from parallelix.node import keys, standing, state
from parallelix.node.home import Home
from parallelix.protocol.messages import Standing
from parallelix.protocol.signing import NodeKey

LOCKER = "0x52908400098527886E0F7030069857D2E4169EE7"
REWARDS = "0x8617E340B3D01FA5F11F306F4090FD50E238070D"
KEY = NodeKey(bytes.fromhex("42" * 32))
KEY_HASH = "0x" + KEY.key_hash.hex()
WITHDRAWABLE_AT = 1_795_852_800
"""2026-11-28 08:00 UTC."""


@pytest.fixture
def made(home: Home) -> Home:
    """A node that has served as 4217, and whose daemon is stopped."""
    home.root.mkdir(mode=0o700)
    home.node_key.touch(mode=0o600)
    home.node_key.write_text(keys.NODE_KEY_PREFIX + "42" * 32)
    remember(home, state.State.ACTIVE_IDLE)
    return home


def remember(home: Home, now: state.State, *, reason: str = "") -> None:
    at = int((time.time() - 7200) * 1000)
    stored = state.Stored(state=now, node_id="4217", reason=reason, changed_at=at)
    state.write(home, stored, durable=False)


def said(**changes: Any) -> Standing:
    standing = Standing(
        node_id="4217",
        state="active",
        hardware_tier=1,
        node_key_hash=KEY_HASH,
        chain_id=31337,
        contracts={"NodeRegistryLocker": LOCKER, "OperatorStakeRewardsV2": REWARDS, "PRLX": LOCKER},
        block=77,
        server_time=1,
    )
    return msgspec.structs.replace(standing, **changes)


@contextmanager
def coordinator(home: Home, answer: Standing | node_worlds.Answer, *settings: str) -> Generator[node_worlds.Web]:
    """Answers so when it is asked for the node's standing."""
    given = (200, msgspec.to_builtins(answer)) if isinstance(answer, Standing) else answer

    def respond(_method: str, path: str, _body: bytes) -> node_worlds.Answer:
        return given if path == "/api/operator/standing" else (404, {"error": "not_found", "message": ""})

    with node_worlds.Web(respond) as web:
        lines = [f'coordinator = "{web.url}/api"', "chain_id = 31337", *settings]
        home.config.write_text("\n".join(lines))
        home.config.chmod(0o600)
        yield web


def answered(operate: Operate) -> dict[str, Any]:
    return matches_schema("status", operate("status", "--json").out)


def test_chain_contracts_and_state_come_from_the_network(made: Home, operate: Operate) -> None:
    with coordinator(made, said()):
        shown = operate("status").out
    assert "· chain id       31337\n" in shown
    assert f"· NodeRegistryLocker {LOCKER}\n" in shown and f"· OperatorStakeRewardsV2 {REWARDS}\n" in shown
    assert "PRLX" not in shown
    assert "· state          ACTIVE · idle, machine off · node 4217\n" in shown
    assert "· as of          now, by the coordinator at block 77\n" in shown


@pytest.mark.parametrize(
    ("heard", "before", "after", "reason"),
    [
        ("cooling", "ACTIVE.idle", "COOLING", "its stake is withdrawable from 2026-11-28 08:00 UTC"),
        ("retired", "ACTIVE.idle", "RETIRED", "its stake was withdrawn"),
        ("retired", "COOLING", "RETIRED", "its stake was withdrawn"),
        ("unknown", "ACTIVE.idle", "RETIRED", "it is not registered on this network"),
        ("unknown", "INITED", "INITED", "as stored"),
        ("active", "COOLING", "INITED", ""),
        ("active", "ACTIVE.idle", "ACTIVE.idle", "as stored"),
    ],
)
def test_the_registry_knows_what_became_of_a_node_whose_daemon_is_stopped(
    made: Home, operate: Operate, heard: Any, before: str, after: str, reason: str
) -> None:
    remember(made, state.State(before), reason="as stored")
    with coordinator(made, said(state=heard, cooldown_ends_at=WITHDRAWABLE_AT if heard == "cooling" else 0)):
        answer = answered(operate)
    assert (answer["state"], answer["state_reason"], answer["source"]) == (after, reason, "coordinator")
    assert state.read(made).state == before, "the file is the daemon's"


def test_what_was_heard_last_is_told_with_its_age_when_nobody_answers(made: Home, operate: Operate) -> None:
    with coordinator(made, said(state="cooling", cooldown_ends_at=WITHDRAWABLE_AT)):
        answered(operate)
    heard = msgspec.json.decode(made.network.read_bytes(), type=standing.Heard)
    older = msgspec.structs.replace(heard, at=heard.at - 5 * 3600 * 1000)
    made.network.write_bytes(msgspec.json.encode(older))
    shown = operate("status").out
    assert "COOLING · node 4217 · its stake is withdrawable from 2026-11-28 08:00 UTC" in shown
    assert "· as of          5 h ago, by the coordinator; the coordinator did not answer\n" in shown
    assert f"· NodeRegistryLocker {LOCKER}\n" in shown


def test_without_anything_heard_this_machine_says_what_it_knows_and_since_when(made: Home, operate: Operate) -> None:
    made.config.write_text('coordinator = "http://127.0.0.1:1/api"')
    shown = operate("status").out
    assert "ACTIVE · idle, machine off · node 4217" in shown
    assert "· as of          2 h ago, by this machine; the coordinator did not answer\n" in shown


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ((404, {"error": "not_found", "message": "no such call"}), "the coordinator answered 404"),
        ((200, {"state": "splendid"}), "the coordinator's answer was not understood"),
        (said(node_id="4218", state="retired"), "the coordinator answered for another node"),
        ((200, {"x": "x" * 70_000}), "the coordinator's answer is longer than 65536 bytes"),
        ((302, {"location": "elsewhere"}), "the coordinator answered 302"),
    ],
)
def test_an_answer_that_is_none_changes_nothing(
    made: Home, operate: Operate, answer: Standing | node_worlds.Answer, why: str
) -> None:
    with coordinator(made, answer):
        found = answered(operate)
    assert (found["state"], found["source"], found["not_heard"]) == ("ACTIVE.idle", "machine", why)
    assert not made.network.exists()


def test_what_was_heard_of_another_node_or_chain_is_not_this_nodes(made: Home, operate: Operate) -> None:
    with coordinator(made, said(state="retired")):
        answered(operate)
    made.config.write_text('coordinator = "http://127.0.0.1:1/api"\nchain_id = 1')
    assert answered(operate)["state"] == "ACTIVE.idle"
    made.network.write_text('{"torn')
    assert answered(operate)["source"] == "machine"


def test_what_does_not_fit_together_is_warned_of_with_both_values(made: Home, operate: Operate) -> None:
    other = "0x" + "ab" * 32
    settings = ("[contracts]", f'NodeRegistryLocker = "{REWARDS}"')
    with coordinator(made, said(node_key_hash=other, chain_id=1), *settings):
        shown = operate("status").out
        warnings = answered(operate)["warnings"]
    assert len(warnings) == 3
    assert other in warnings[1] and KEY_HASH in warnings[1] and "PARALLELIX_HOME" in warnings[1]
    assert "! the network is on chain 1; set chain_id = 1 in config.toml\n" in shown
    assert warnings[2].startswith(f"NodeRegistryLocker: config.toml says {REWARDS}, the coordinator says {LOCKER};")
    assert f"· NodeRegistryLocker {REWARDS}\n" in shown, "what the operator wrote goes first"


def test_a_node_that_never_attached_asks_nobody(home: Home, operate: Operate) -> None:
    with coordinator_before_init(home) as web:
        assert json.loads(operate("status", "--json").out)["state"] == "FRESH"
        assert web.seen == []


@contextmanager
def coordinator_before_init(home: Home) -> Generator[node_worlds.Web]:
    home.root.mkdir(mode=0o700)
    with coordinator(home, said()) as web:
        yield web
