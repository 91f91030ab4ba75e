"""Sessions end and are forgotten, and what stands for their nonces with them: never before the nonces are past."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from wallet_scene import signed

from parallelix.coordinator import accounts, app
from parallelix.coordinator.accounts import SESSION_SECONDS, Accounts
from parallelix.coordinator.errors import SignInRefused, Unauthorised
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.coordinator.sign_in import NONCE_SECONDS, place_of
from parallelix.coordinator.store.store import Store
from parallelix.protocol.accounts import NonceView, SessionView, SignInBody
from parallelix.protocol.sign_in import SignIn
from parallelix.protocol.signing import NodeKey

PLACE = place_of("https://parallelix.test", None, "")
WALLET = NodeKey(b"\x11" * 32)


class Clock:
    def __init__(self) -> None:
        self.now = 1_795_000_000_000

    def __call__(self) -> int:
        return self.now

    def skip(self, seconds: float) -> None:
        self.now += round(seconds * 1000)


@asynccontextmanager
async def coordinator_in(folder: Path, clock: Clock) -> AsyncGenerator[Coordinator]:
    (folder / "catalogue.toml").write_text("")
    settings = CoordinatorSettings(data_folder=str(folder))
    async with app.running(settings, log=lambda name, fields: None, on_fatal=fatal, clock=clock) as running:
        yield running


def fatal(error: BaseException) -> NoReturn:
    raise AssertionError("the coordinator cannot go on") from error


def body_for(nonce: NonceView, wallet: NodeKey = WALLET) -> SignInBody:
    message = SignIn(
        domain=nonce.domain, address=wallet.address, uri=nonce.uri, chain_id=nonce.chain_id, nonce=nonce.nonce,
        issued_at=nonce.issued_at,
    )  # fmt: skip
    return SignInBody(**signed(wallet, message.text))


async def signed_in(on: Accounts, wallet: NodeKey = WALLET) -> SessionView:
    return await on.sign_in(body_for(on.nonce(PLACE), wallet), PLACE)


def sessions_in(coordinator: Coordinator) -> set[str]:
    return {key.key_id for key in coordinator.engine.keys.values() if key.kind == "session"}


async def code_of(on: Accounts, body: SignInBody) -> str:
    with pytest.raises(SignInRefused) as refused:
        await on.sign_in(body, PLACE)
    return refused.value.code


async def test_a_session_lasts_an_hour(tmp_path: Path) -> None:
    clock = Clock()
    async with coordinator_in(tmp_path, clock) as coordinator:
        session = await signed_in(Accounts(coordinator))
        clock.skip(SESSION_SECONDS - 1)
        assert coordinator.authenticate(session.token, "keys").account == WALLET.address
        clock.skip(1)
        with pytest.raises(Unauthorised) as refused:
            coordinator.authenticate(session.token)
        assert refused.value.code == "expired_key"


async def test_a_sign_in_is_refused_at_every_time_after_it_was_taken(tmp_path: Path) -> None:
    clock = Clock()
    async with coordinator_in(tmp_path, clock) as coordinator:
        on = Accounts(coordinator)
        body = body_for(on.nonce(PLACE))
        first = await on.sign_in(body, PLACE)
        seen: list[str] = []
        for _ in range(0, 2 * SESSION_SECONDS, NONCE_SECONDS // 2):
            seen.append(await code_of(on, body))
            # Another's sign-in is what clears ended sessions away.
            await signed_in(on, NodeKey.generate())
            clock.skip(NONCE_SECONDS // 2)
        assert seen[:2] == ["used_nonce"] * 2
        assert set(seen[2:]) == {"stale_sign_in"}
        assert first.id not in sessions_in(coordinator)


async def test_ended_sessions_are_forgotten_in_memory_and_in_the_store(tmp_path: Path) -> None:
    clock = Clock()
    async with coordinator_in(tmp_path, clock) as coordinator:
        on = Accounts(coordinator)
        most = 0
        for _ in range(40):
            await signed_in(on)
            most = max(most, len(sessions_in(coordinator)))
            clock.skip(SESSION_SECONDS / 8)
        assert most == 8
        remembered = sessions_in(coordinator)
    store = Store.open(f"sqlite:///{tmp_path / 'coordinator.db'}")
    try:
        assert {row.key_id for row in store.load(now=clock.now).keys} == remembered
    finally:
        store.close()


async def test_what_a_restart_finds_ended_is_forgotten_a_slice_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "FORGET_SLICE", 2)
    clock = Clock()
    async with coordinator_in(tmp_path, clock) as coordinator:
        on = Accounts(coordinator)
        for _ in range(5):
            await signed_in(on)
        clock.skip(2 * SESSION_SECONDS)
        # As a restart finds them.
        anew = Accounts(coordinator)
        left: list[int] = []
        for _ in range(3):
            await signed_in(anew)
            left.append(len(sessions_in(coordinator)))
    assert left == [5 - 2 + 1, 3 - 2 + 2, 1 - 1 + 3]


async def test_a_clock_that_is_set_back_lets_no_nonce_be_used_again(tmp_path: Path) -> None:
    clock = Clock()
    async with coordinator_in(tmp_path, clock) as coordinator:
        on = Accounts(coordinator)
        body = body_for(on.nonce(PLACE))
        await on.sign_in(body, PLACE)
        clock.skip(-30)
        assert await code_of(on, body) == "used_nonce"
        clock.skip(2 * SESSION_SECONDS)
        # The session is forgotten by this.
        await signed_in(on, NodeKey.generate())
        clock.skip(-2 * SESSION_SECONDS)
        assert await code_of(on, body) == "stale_sign_in"
