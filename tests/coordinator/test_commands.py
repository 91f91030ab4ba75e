"""Grants and keys as commands in the store: each applied once, each answered, whatever dies in between."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec
import pytest

from parallelix.coordinator import app, commands, settings
from parallelix.coordinator.errors import ApiError
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.store.rows import CommandRow
from parallelix.coordinator.store.store import Store
from parallelix.engine import challenges
from parallelix.protocol.signing import checksum_address

ACCOUNT = checksum_address(b"\xbb" * 20)
"""As its wallet would sign in; typed in any case."""
WAIT_SECONDS = 20


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator gave up") from error


class Scene:
    """One data folder; the coordinator over it comes and goes."""

    def __init__(self, folder: Path) -> None:
        self.settings = settings.load(folder)
        (folder / "catalogue.toml").write_text(
            f'[[models]]\nname = "m"\ndigests = ["{"0" * 64}"]\nprompt_wei_per_1000 = "1"\n'
            'completion_wei_per_1000 = "1"\ncontext_tokens = 100\n'
        )

    @asynccontextmanager
    async def coordinator(self) -> AsyncGenerator[Coordinator]:
        async with app.running(self.settings, log=lambda name, fields: None, on_fatal=fatal) as coordinator:
            yield coordinator

    def leave(self, kind: Literal["grant", "key", "revoke"], body: msgspec.Struct) -> CommandRow:
        """What `parallelix coordinator` does, with or without a coordinator running."""
        row = commands.command_row(kind, body, now=time.time_ns() // 1_000_000)
        with closing(Store.open(self.settings.database_url)) as store:
            store.insert_command(row)
        return row

    def answer(self, row: CommandRow) -> commands.CommandAnswer | None:
        with closing(Store.open(self.settings.database_url)) as store:
            found = store.command(row.command_id)
        assert found is not None
        return msgspec.json.decode(found.answer, type=commands.CommandAnswer) if found.applied_at else None

    async def answered(self, row: CommandRow) -> commands.CommandAnswer:
        async with asyncio.timeout(WAIT_SECONDS):
            while (answer := self.answer(row)) is None:
                await asyncio.sleep(0.05)
        return answer


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def grant(amount_wei: str) -> commands.GrantCommand:
    return commands.GrantCommand(account=ACCOUNT.lower(), amount_wei=amount_wei)


def key_command(new: commands.NewKey, **limits: Any) -> commands.KeyCommand:
    return commands.KeyCommand(
        key_id=new.key_id, key_hash=new.key_hash, account=ACCOUNT.upper().replace("X", "x"), name="test", **limits
    )


async def available(coordinator: Coordinator, new: commands.NewKey) -> int:
    return int((await coordinator.account(coordinator.authenticate(new.secret))).available_wei)


async def test_what_was_left_before_the_start_is_applied_once_over_restarts(scene: Scene) -> None:
    new = commands.new_key()
    rows = [scene.leave("grant", grant("700")), scene.leave("key", key_command(new))]
    for _ in range(2):
        async with scene.coordinator() as coordinator:
            assert [(await scene.answered(row)).ok for row in rows] == [True, True]
            assert await available(coordinator, new) == 700


async def test_a_running_coordinator_picks_commands_up(scene: Scene) -> None:
    new = commands.new_key()
    async with scene.coordinator() as coordinator:
        assert (await scene.answered(scene.leave("key", key_command(new)))).ok
        for amount_wei, sum_wei in (("5", 5), ("7", 12)):
            assert (await scene.answered(scene.leave("grant", grant(amount_wei)))).ok
            assert await available(coordinator, new) == sum_wei


async def test_a_grant_whose_answer_was_lost_is_not_booked_twice(scene: Scene) -> None:
    new = commands.new_key()
    rows = [scene.leave("key", key_command(new)), scene.leave("grant", grant("5"))]
    async with scene.coordinator():
        await scene.answered(rows[1])
    with closing(Store.open(scene.settings.database_url)) as store:
        store.acquire("the test, which takes the answer away again")
        store.commit([rows[1]])
    assert scene.answer(rows[1]) is None
    async with scene.coordinator() as coordinator:
        assert (await scene.answered(rows[1])).ok
        assert await available(coordinator, new) == 5


async def test_a_revoked_key_opens_nothing_and_its_account_stays(scene: Scene) -> None:
    old, new = commands.new_key(), commands.new_key()
    async with scene.coordinator() as coordinator:
        for each in (old, new):
            await scene.answered(scene.leave("key", key_command(each)))
        assert (await scene.answered(scene.leave("revoke", commands.RevokeCommand(key_id=old.key_id)))).ok
        with pytest.raises(ApiError) as refused:
            coordinator.authenticate(old.secret)
        assert refused.value.code == "revoked_key"
        assert coordinator.authenticate(new.secret).account == ACCOUNT


def an_amount(text: str) -> tuple[Literal["grant"], msgspec.Struct]:
    return "grant", grant(text)


@pytest.mark.parametrize(
    ("kind", "body", "complaint"),
    [
        (*an_amount("0"), "expected 1 to"),
        (*an_amount("-5"), "expected 1 to"),
        (*an_amount("9" * 100), "expected 1 to"),
        (*an_amount("1e18"), "1e18"),
        ("revoke", commands.RevokeCommand(key_id="key_nobody"), "not known"),
        ("key", grant("5"), "key_id"),
    ],
)
async def test_a_command_that_cannot_be_done_is_answered_and_holds_up_no_other(
    scene: Scene, kind: Literal["grant", "key", "revoke"], body: msgspec.Struct, complaint: str
) -> None:
    async with scene.coordinator() as coordinator:
        bad, good = scene.leave(kind, body), scene.leave("grant", grant("5"))
        answer = await scene.answered(bad)
        assert (answer.ok, complaint in answer.message) == (False, True), answer
        assert (await scene.answered(good)).ok
        assert coordinator.engine.ledger.balance_wei(f"available:{ACCOUNT}") == 5


async def test_nobody_gets_a_key_or_credits_for_the_coordinators_own_account(scene: Scene) -> None:
    own = commands.GrantCommand(account=challenges.ACCOUNT, amount_wei="1")
    key = msgspec.structs.replace(key_command(commands.new_key()), account=challenges.ACCOUNT)
    rows = scene.leave("grant", own), scene.leave("key", key)
    async with scene.coordinator() as coordinator:
        for row in rows:
            answer = await scene.answered(row)
            assert not answer.ok and "the coordinator's own" in answer.message
        assert coordinator.engine.keys == {}


async def test_a_key_is_in_the_store_by_its_hash_only(scene: Scene, tmp_path: Path) -> None:
    new = commands.new_key()
    async with scene.coordinator():
        await scene.answered(scene.leave("key", key_command(new)))
    stored = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert new.key_hash.encode() in stored
    assert new.secret.encode() not in stored
    assert new.secret not in repr(new)


def test_keys_are_told_from_other_secrets_by_their_beginning() -> None:
    made: Callable[[], commands.NewKey] = commands.new_key
    assert made().secret.startswith("prlx_")
    assert made().secret != made().secret
