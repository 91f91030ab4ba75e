"""`login --key-file`, `keys`: a wallet's key file is all that a requester needs to get and manage API keys."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
import pytest_asyncio
from client_scene import Operate, Operating, Script, matches_golden, matches_schema, with_fixed_values
from http_network import CREDITS_WEI, Network

from parallelix.client import Client, Retry
from parallelix.client import config as configs
from parallelix.client.errors import ConfigRefused, KeyRefused, PaymentRequired, Refused, Unauthorised, Unreachable
from parallelix.client.wallets import message_of, read_wallet
from parallelix.engine import events
from parallelix.protocol.accounts import NewKeyBody, NonceView
from parallelix.protocol.signing import NodeKey

on_the_shared_network = pytest.mark.asyncio(loop_scope="module")
SECRET = "0x" + "11" * 32


def key_file_of(folder: Path, wallet: NodeKey) -> Path:
    path = folder / "wallet.key"
    path.write_text(f"0x{wallet.secret.hex()}\n")
    path.chmod(0o600)
    return path


@pytest_asyncio.fixture(loop_scope="module")
async def wallet(network: Network) -> AsyncIterator[NodeKey]:
    """A wallet whose account has credits."""
    wallet = NodeKey.generate()
    grant = events.Grant(grant_id=f"grant:{wallet.address}", account=wallet.address, amount_wei=CREDITS_WEI)
    await network.coordinator.settle(grant)
    yield wallet


@pytest.fixture
def key_file(tmp_path: Path, wallet: NodeKey) -> str:
    return str(key_file_of(tmp_path, wallet))


# The commands


@on_the_shared_network
async def test_a_wallet_logs_in_and_asks(
    network: Network, wallet: NodeKey, key_file: str, operating: Operating
) -> None:
    printed = await operating("login", "--key-file", key_file, "--url", network.url)
    matches_golden("login-wallet", with_fixed_values(printed.out))
    stored = configs.load_file()
    assert stat.S_IMODE(configs.path().stat().st_mode) == 0o600
    assert stored.api_key not in printed.out + printed.err
    assert wallet.secret.hex() not in printed.out + printed.err + configs.path().read_text()
    asked = await operating("ask", "one two", "--json")
    assert asked.code == 0, asked.err
    account = json.loads((await operating("account", "--json")).out)
    assert account["account"] == wallet.address
    assert account["key"]["scopes"] == ["inference", "read"]


@on_the_shared_network
async def test_keys_are_made_listed_and_revoked_by_the_wallet(
    network: Network, key_file: str, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARALLELIX_URL", network.url)
    monkeypatch.setenv("PARALLELIX_KEY_FILE", key_file)
    given = ("--name", "ci", "--budget", "10prlx", "--requests-per-minute", "60", "--concurrency", "2", "--days", "30")
    matches_golden("keys-create", with_fixed_values((await operating("keys", "create", *given)).out))
    made = matches_schema("keys-create", (await operating("keys", "create", "--scope", "read", "--json")).out)
    assert made["key"]["scopes"] == ["read"]
    listed = matches_schema("keys", (await operating("keys", "list", "--json")).out)["data"]
    assert [key["kind"] for key in listed].count("key") == 2
    assert made["api_key"] not in json.dumps(listed)
    matches_golden("keys-list", with_fixed_values((await operating("keys", "list")).out))
    revoked = matches_schema("keys-revoke", (await operating("keys", "revoke", made["id"], "--json")).out)
    assert revoked["revoked"]
    matches_golden("keys-revoke", with_fixed_values((await operating("keys", "revoke", made["id"])).out))
    monkeypatch.setenv("PARALLELIX_API_KEY", made["api_key"])
    refused = await operating("account", "--json")
    assert (refused.code, refused.error["error"]) == (3, "revoked_key")


@on_the_shared_network
async def test_a_key_without_the_scope_makes_no_keys(
    network: Network, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARALLELIX_URL", network.url)
    monkeypatch.setenv("PARALLELIX_API_KEY", await network.new_key("plain"))
    refused = await operating("keys", "create", "--json")
    assert (refused.code, refused.error["error"]) == (4, "missing_scope")


@on_the_shared_network
async def test_a_wallet_without_credits_is_told_to_deposit(
    network: Network, tmp_path: Path, operating: Operating
) -> None:
    path = key_file_of(tmp_path, NodeKey.generate())
    refused = await operating("login", "--key-file", str(path), "--url", network.url, "--json")
    assert (refused.code, refused.error["error"]) == (4, "no_deposit")
    assert "deposit" in refused.error["message"]
    assert not configs.path().exists()


@pytest.mark.parametrize(
    ("text", "mode", "reason"),
    [
        (SECRET, 0o644, "mode 0644"),
        (SECRET[:-2], 0o600, "62 characters"),
        ("0x" + "ff" * 32, 0o600, "not a private key"),
        ("0x" + "00" * 32, 0o600, "not a private key"),
        ("zz" * 32, 0o600, "not a private key"),
    ],
)
def test_a_key_file_that_cannot_be_used_is_refused_without_showing_it(
    tmp_path: Path, operate: Operate, text: str, mode: int, reason: str
) -> None:
    path = tmp_path / "wallet.key"
    path.write_text(text)
    path.chmod(mode)
    refused = operate("login", "--key-file", str(path), "--url", "http://127.0.0.1:1", "--json")
    assert (refused.code, refused.error["error"]) == (3, "client.key_refused")
    assert reason in refused.error["message"]
    assert text[2:] not in refused.err


def test_a_key_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeyRefused, match="there is no such file"):
        read_wallet(tmp_path / "nothing.key")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("create", "--scope", "everything"), "expected inference, read, keys, withdraw"),
        (("create", "--days", "-1"), "--days -1"),
        (("create", "--budget", "10"), "budget"),
        (("create", "--name", " x"), "printable"),
        (("revoke", "prlx_abc"), "takes the key's id"),
    ],
)
def test_what_no_key_can_be_is_refused_before_anything_is_sent(
    operate: Operate, arguments: tuple[str, ...], reason: str
) -> None:
    refused = operate("keys", *arguments, "--url", "http://127.0.0.1:1", "--json")
    assert refused.code == 2
    assert reason in refused.error["message"]


# The SDK


NONCE = NonceView(
    nonce="a" * 76, domain="parallelix.io", uri="https://parallelix.io/api", version="1", chain_id=1,
    issued_at="2026-11-21T15:00:00.000Z", expiration_time="2026-11-21T15:10:00.000Z",
)  # fmt: skip
ADDRESS = NodeKey(bytes.fromhex(SECRET[2:])).address


def test_a_message_names_the_url_that_the_requester_gave() -> None:
    message = message_of(NONCE, address=ADDRESS, base_url="https://parallelix.io/api")
    assert (message.domain, message.uri, message.address) == ("parallelix.io", "https://parallelix.io/api", ADDRESS)


@pytest.mark.parametrize("base_url", ["https://evil.example/api", "http://127.0.0.1:8400", "http://parallelix.io/api"])
def test_a_coordinator_that_asks_for_a_sign_in_elsewhere_gets_none(base_url: str) -> None:
    with pytest.raises(ConfigRefused, match="takes sign-ins for https"):
        message_of(NONCE, address=ADDRESS, base_url=base_url)


async def test_nothing_is_signed_for_another_place() -> None:
    class Unwilling:
        address = ADDRESS

        def sign(self, text: str) -> bytes:
            raise AssertionError(f"asked to sign {text!r}")

    wire = Script(httpx.Response(200, content=msgspec.json.encode(NONCE)))
    async with Client("https://evil.example/api", transport=wire) as client:
        with pytest.raises(ConfigRefused):
            await client.sign_in(Unwilling())
    assert len(wire.calls) == 1


@pytest.mark.parametrize("call", ["sign_in", "create_key"])
async def test_what_counts_once_is_not_sent_again_when_the_line_breaks(call: str) -> None:
    nonce = httpx.Response(200, content=msgspec.json.encode(NONCE))
    broken = httpx.ReadError("cut")
    steps: list[Any] = [nonce, broken] if call == "sign_in" else [broken]
    wire = Script(*steps)
    async with Client("https://parallelix.io/api", transport=wire, retry=Retry()) as client:
        with pytest.raises(Unreachable):
            if call == "sign_in":
                await client.sign_in(NodeKey(bytes.fromhex(SECRET[2:])))
            else:
                await client.create_key(NewKeyBody())
    assert wire.steps == []


@on_the_shared_network
async def test_the_sdk_signs_in_and_meets_the_refusals_by_their_codes(network: Network, wallet: NodeKey) -> None:
    async with Client(network.url) as client:
        session = await client.sign_in(wallet)
    async with Client(network.url, session.token) as own:
        made = await own.create_key(NewKeyBody(name="sdk"))
        with pytest.raises(Refused) as no_vault:
            await own.clearance(1)
        assert (no_vault.value.code, no_vault.value.status) == ("no_vault", 409)
        assert (await own.revoke_key(made.id)).revoked
        with pytest.raises(Refused) as unknown:
            await own.revoke_key("key_" + "0" * 16)
        assert unknown.value.code == "unknown_key"
        assert (await own.revoke_key(session.id)).kind == "session"
        with pytest.raises(Unauthorised):
            await own.account()


@on_the_shared_network
async def test_the_sdk_says_what_a_stranger_lacks(network: Network) -> None:
    async with Client(network.url) as client:
        session = await client.sign_in(NodeKey.generate())
    async with Client(network.url, session.token) as own:
        with pytest.raises(PaymentRequired) as refused:
            await own.create_key(NewKeyBody())
        assert refused.value.code == "no_deposit"
