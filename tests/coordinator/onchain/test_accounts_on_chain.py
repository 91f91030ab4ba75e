"""An account that lives from its deposit: its wallet signs in, sees what is bound of it, and takes the rest out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from chained import DEPOSIT_WEI, Chained, chained
from eth_abi.abi import encode
from hand_driven import HandNode
from hypothesis import given, settings
from hypothesis import strategies as st
from wallet_scene import asked_nonce, bearer, message_of, signed

from bench.chain_world import TOKEN, ChainWorld
from lying_endpoint import endpoint_of
from parallelix import private_files
from parallelix.chain import contract_wallets
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.client import cli
from parallelix.coordinator import accounts
from parallelix.coordinator.accounts import CONTRACTS_ASKED_MAX
from parallelix.coordinator.http.app import build_app
from parallelix.coordinator.http.server import Server
from parallelix.protocol.signing import NodeKey, checksum_address, personal_hash

pytestmark = pytest.mark.service


@asynccontextmanager
async def surface(scene: Chained) -> AsyncGenerator[httpx.AsyncClient]:
    app: Any = build_app(scene.coordinator)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8400", timeout=30) as http:
        yield http


def wallet_of(world: ChainWorld, person: str) -> NodeKey:
    return NodeKey(bytes(world.person(person).key))


async def token_of(http: httpx.AsyncClient, wallet: NodeKey) -> dict[str, str]:
    body = signed(wallet, message_of(await asked_nonce(http), wallet.address).text)
    answer = await http.post("/v1/auth/sign-in", json=body)
    assert answer.status_code == 201, answer.text
    return bearer(answer.json()["token"])


async def vault_of(http: httpx.AsyncClient, owner: dict[str, str]) -> dict[str, Any]:
    return (await http.get("/v1/account", headers=owner)).json()["vault"]


async def test_a_wallet_sees_what_its_deposit_is_bound_by_and_withdraws_the_rest_at_once(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene, surface(scene) as http:
        owner = await token_of(http, wallet_of(staked_world, "ann"))
        await scene.executed()
        await scene.until(lambda: not scene.coordinator.engine.recorder.unconfirmed)
        scene.do("ann", staked_world.vault.set_daily_limit(50 * TOKEN))
        scene.do("ann", staked_world.vault.request_withdrawal(TOKEN))
        await scene.until(lambda: scene.coordinator.engine.mirror.accounts[scene.account].requested_wei)

        shown = await vault_of(http, owner)
        unsettled_wei = int(shown["unsettled_wei"])
        assert unsettled_wei > 0
        assert shown["address"] == staked_world.vault.address == checksum_address(bytes.fromhex(shown["address"][2:]))
        assert (shown["chain_id"], shown["deposit_wei"], shown["asked_wei"]) == (31337, str(DEPOSIT_WEI), str(TOKEN))
        assert (shown["cleared_wei"], shown["daily_limit_wei"]) == ("0", str(50 * TOKEN))
        assert int(shown["spendable_wei"]) == DEPOSIT_WEI - TOKEN - unsettled_wei
        assert int(shown["daily_room_wei"]) == 50 * TOKEN - unsettled_wei

        wanted = {"amount_wei": str(100 * TOKEN)}
        cleared = await http.post("/v1/account/clearance", json=wanted, headers=owner)
        assert cleared.status_code == 200, cleared.text
        fields = cleared.json()
        assert fields == (await http.post("/v1/account/clearance", json=wanted, headers=owner)).json()
        other = await http.post("/v1/account/clearance", json={"amount_wei": "1"}, headers=owner)
        assert (other.status_code, other.json()["error"]) == (409, "clearance_open")
        assert (await vault_of(http, owner))["cleared_wei"] == wanted["amount_wei"]

        assert fields["vault"] == staked_world.vault.address
        scene.do(
            "ann",
            staked_world.vault.withdraw_with_clearance(
                int(fields["amount_wei"]), int(fields["cumulative_spent_wei"]), fields["nonce"], fields["expiry"],
                fields["v"], bytes.fromhex(fields["r"][2:]), bytes.fromhex(fields["s"][2:]),
            ),
        )  # fmt: skip
        left_wei = DEPOSIT_WEI - 100 * TOKEN - unsettled_wei
        await scene.until(lambda: scene.coordinator.engine.mirror.accounts[scene.account].deposit_wei == left_wei)
        assert scene.coordinator.rpc is not None
        assert await CreditVaultViews(scene.coordinator.rpc, fields["vault"]).deposits(scene.account) == left_wei
        shown = await vault_of(http, owner)
        assert (shown["deposit_wei"], shown["unsettled_wei"], shown["cleared_wei"]) == (str(left_wei), "0", "0")


async def test_an_account_without_a_deposit_signs_in_but_asks_and_withdraws_nothing(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with chained(staked_world, folder, node) as scene, surface(scene) as http:
        owner = await token_of(http, NodeKey.generate())
        assert (await vault_of(http, owner))["deposit_wei"] == "0"
        for path, body in (("/v1/keys", {}), ("/v1/account/clearance", {"amount_wei": "1"})):
            refused = await http.post(path, json=body, headers=owner)
            assert refused.status_code == 402, refused.text


async def test_the_command_logs_in_and_shows_the_vault_within_80_columns(
    staked_world: ChainWorld, node: HandNode, folder: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    key_file = folder / "ann.key"
    private_files.create(key_file, f"0x{wallet_of(staked_world, 'ann').secret.hex()}\n".encode(), durable=False)
    monkeypatch.setenv("PARALLELIX_HOME", str(folder / "client"))
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("PARALLELIX_API_KEY", raising=False)
    async with chained(staked_world, folder, node) as scene:
        await scene.offered()
        server = Server(build_app(scene.coordinator), host="127.0.0.1", port=0)
        async with server.serving() as url:
            assert await asyncio.to_thread(cli.run, ["login", "--key-file", str(key_file), "--url", url]) == 0
            assert await asyncio.to_thread(cli.run, ["account"]) == 0
    shown = capsys.readouterr().out
    assert f"// vault {staked_world.vault.address} at block" in shown
    assert "· deposit     1000 PRLX" in shown
    assert "· daily limit 10000 PRLX, " in shown
    assert [line for line in shown.splitlines() if len(line) > 80] == []


# Wallets that are contracts


def approving(digest: bytes) -> str:
    """The code of a wallet that holds anything to be its own signature over this one hash, as a Safe does over a hash
    that its owners approved on the chain: isValidSignature's first argument, compared, times what means yes."""
    yes = contract_wallets.IS_VALID_SIGNATURE.ljust(32, b"\0")
    return "0x" + (b"\x60\x04\x35\x7f" + digest + b"\x14\x7f" + yes + b"\x02\x5f\x52\x60\x20\x5f\xf3").hex()


async def test_a_wallet_that_is_a_contract_signs_in_by_its_own_word(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    address = checksum_address(b"\x5a" * 20)
    async with chained(staked_world, folder, node) as scene, surface(scene) as http:
        approved, other = [message_of(await asked_nonce(http), address).text for _ in range(2)]
        body = {"message": approved, "signature": "0x" + "07" * 200}
        nobody = await http.post("/v1/auth/sign-in", json=body)
        assert (nobody.status_code, nobody.json()["error"]) == (401, "wrong_signer")

        staked_world.anvil.ask("anvil_setCode", address, approving(personal_hash(approved)))
        refused = await http.post("/v1/auth/sign-in", json=body | {"message": other})
        assert (refused.status_code, refused.json()["error"]) == (401, "wrong_signer")
        # All of them wait for the contract's word at the same time.
        answers = await asyncio.gather(*(http.post("/v1/auth/sign-in", json=body) for _ in range(CONTRACTS_ASKED_MAX)))
        (taken,) = [answer for answer in answers if answer.status_code == 201]
        assert taken.json()["account"] == address
        assert [answer.json()["error"] for answer in answers if answer is not taken] == ["used_nonce"] * 3


async def test_whoever_sends_wrong_signatures_has_the_chain_asked_so_often_a_minute_and_no_more(
    staked_world: ChainWorld, node: HandNode, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accounts, "CONTRACTS_ASKED_A_MINUTE", 3)
    async with chained(staked_world, folder, node) as scene, surface(scene) as http:
        ann = wallet_of(staked_world, "ann")

        async def refusal(address: str) -> tuple[int, str]:
            body = {"message": message_of(await asked_nonce(http), address).text, "signature": "0x" + "07" * 65}
            answer = await http.post("/v1/auth/sign-in", json=body)
            return answer.status_code, answer.json()["error"]

        refused = [await refusal(NodeKey.generate().address) for _ in range(5)]
        assert refused == [(401, "wrong_signer")] * 3 + [(503, "overloaded")] * 2
        assert await refusal(ann.address) == (401, "wrong_signer")
        assert await token_of(http, NodeKey.generate())


async def test_a_contract_signs_in_only_where_both_endpoints_say_so(
    staked_world: ChainWorld, node: HandNode, folder: Path
) -> None:
    async with (
        endpoint_of(staked_world.anvil.url) as liar,
        chained(staked_world, folder, node, rpc_url=liar.url, rpc_check_url=staked_world.anvil.url) as scene,
        surface(scene) as http,
    ):
        liar.twist = lambda method, parameters, result: (
            "0x1626ba7e" + "00" * 28 if "1626ba7e" in str(parameters) else result
        )
        victim = message_of(await asked_nonce(http), wallet_of(staked_world, "ann").address).text
        body = {"message": victim, "signature": "0x" + "07" * 65}
        answer = await http.post("/v1/auth/sign-in", json=body)
        assert (answer.status_code, answer.json()["error"]) == (401, "wrong_signer")


@settings(max_examples=50)
@given(st.binary(min_size=32, max_size=32), st.binary(max_size=200))
def test_a_contract_is_asked_as_the_abi_has_it(digest: bytes, signature: bytes) -> None:
    asked = contract_wallets._call(digest, signature)  # pyright: ignore[reportPrivateUsage]
    assert asked == contract_wallets.IS_VALID_SIGNATURE + encode(["bytes32", "bytes"], [digest, signature])
