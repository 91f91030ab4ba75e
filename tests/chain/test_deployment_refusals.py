"""What a deployment refuses before it sends anything."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from chain_scene import Ethereum, Silent, key, named_roles
from eth_account.signers.local import LocalAccount

from parallelix.chain import deployment, deployment_file
from parallelix.chain.deployment import Settings
from parallelix.chain.deployment_file import ROLES, Deployment, Parameters
from parallelix.chain.errors import ChainUnreachable, DeploymentRefused, KeyRefused, Reverted, WrongChain
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.wallet import KEY_VARIABLE, key_from

SOMEBODY = key("somebody").address


@pytest.mark.parametrize("role", [*ROLES, "lockup"])
@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("0x" + "00" * 20, "the zero address"),
        ("0x1234", "no address"),
        (SOMEBODY[2:], "no address"),
        ("vitalik.eth", "no address"),
        (SOMEBODY.swapcase().replace("X", "x"), "wrong checksum"),
    ],
)
def test_each_role_must_be_the_address_of_an_account(role: str, text: str, why: str) -> None:
    given = msgspec.structs.replace(named_roles(), **{role: text})

    with pytest.raises(DeploymentRefused, match=f"^{role}: .*{why}"):
        deployment_file.checked(given)


def test_a_missing_role_is_refused_and_a_missing_lockup_is_not() -> None:
    with pytest.raises(DeploymentRefused, match=r"^settler: '' is no address"):
        deployment_file.checked(msgspec.structs.replace(named_roles(), settler=""))

    assert deployment_file.checked(named_roles()).lockup == ""


@pytest.mark.parametrize("text", [SOMEBODY.lower(), "0x" + SOMEBODY[2:].upper()])
def test_addresses_without_a_checksum_get_theirs(text: str) -> None:
    given = msgspec.structs.replace(named_roles(), owner=text)

    assert deployment_file.checked(given).owner == SOMEBODY


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("withdrawal_delay_seconds", 0),
        ("withdrawal_delay_seconds", 86_401),
        ("bootstrap_amount", "0"),
        ("bootstrap_amount", str(10**26 + 1)),
        ("bootstrap_seconds", 0),
        ("bootstrap_seconds", 2**32),
        ("stale_seconds", 0),
        ("stale_seconds", 86_401),
        ("default_daily_limit", str(10**26 + 1)),
        ("multipliers_tenths", (0, 1, 1, 1)),
        ("multipliers_tenths", (1, 1, 1, 101)),
    ],
)
def test_numbers_that_a_constructor_would_refuse_are_refused_here(name: str, value: object) -> None:
    with pytest.raises(DeploymentRefused, match=rf"^{name}.*, expected \d+ to \d+"):
        deployment_file.checked(msgspec.structs.replace(named_roles(), **{name: value}))


async def refused(rpc: Rpc, deployer: LocalAccount, parameters: Parameters, path: Path, settings: Settings) -> str:
    """Why, with nothing sent."""
    nonce = await rpc.nonce(deployer.address)
    with pytest.raises((DeploymentRefused, WrongChain, Reverted)) as caught:
        await deployment.deploy(rpc, deployer, parameters, path, Silent(), settings)
    assert await rpc.nonce(deployer.address) == nonce
    return caught.value.message


async def test_another_deployment_is_not_mixed_into_the_one_in_the_file(
    rpc: Rpc, parameters: Parameters, deployment_path: Path
) -> None:
    path, deployer = deployment_path, key("deployer")
    before = path.read_bytes()
    other = msgspec.structs.replace(parameters, settler=SOMEBODY, stale_seconds=60)

    message = await refused(rpc, deployer, other, path, Settings())
    assert f"settler is {parameters.settler}, not {SOMEBODY}; stale_seconds is 21600, not 60" in message
    assert "deployer is" in await refused(rpc, key("somebody"), parameters, path, Settings())
    assert path.read_bytes() == before


async def test_a_file_of_another_chain_is_refused(
    rpc: Rpc, parameters: Parameters, deployed: Deployment, deployment_path: Path
) -> None:
    deployment_file.write(deployment_path, msgspec.structs.replace(deployed, chain_id=1))

    message = await refused(rpc, key("deployer"), parameters, deployment_path, Settings())

    assert "serves chain 31337, the deployment file is of chain 1" in message


async def test_a_lockup_without_code_is_refused(
    rpc: Rpc, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    lost = msgspec.structs.replace(parameters, lockup=SOMEBODY)

    message = await refused(rpc, deployer, lost, tmp_path / "d.json", Settings())

    assert f"lockup {SOMEBODY}: no contract stands there on chain 31337" in message
    assert not (tmp_path / "d.json").exists()


async def test_gas_dearer_than_allowed_and_an_empty_purse_are_told_before_anything_is_sent(
    rpc: Rpc, ethereum: Ethereum, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    assert "raise --max-fee-gwei" in await refused(rpc, deployer, parameters, path, Settings(fee_most_wei=1))
    ethereum.anvil.ask("anvil_setBalance", deployer.address, hex(10**9))

    message = await refused(rpc, deployer, parameters, path, Settings())

    assert "PRLX: takes up to" in message
    assert f"the deployer {deployer.address} has 1.000 gwei" in message


async def test_two_runs_over_one_file_do_not_meet(
    rpc: Rpc, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    path = tmp_path / "d.json"
    with deployment_file.locked(path):
        assert "another run works on it" in await refused(rpc, deployer, parameters, path, Settings())


@pytest.mark.parametrize("content", [b"", b"{", b'{"version": 2}', b"\xff", b"[" * 100_000, b" " * 2**21])
async def test_a_file_that_is_no_deployment_is_refused_and_kept(
    rpc: Rpc, deployer: LocalAccount, parameters: Parameters, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "d.json"
    path.write_bytes(content)

    message = await refused(rpc, deployer, parameters, path, Settings())

    assert "no deployment file" in message
    assert path.read_bytes() == content


async def test_a_file_that_cannot_be_written_is_refused_before_anything_is_sent(
    rpc: Rpc, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    nowhere = tmp_path / "no folder" / "d.json"

    assert "its folder cannot be written to" in await refused(rpc, deployer, parameters, nowhere, Settings())
    assert "cannot be read" in await refused(rpc, deployer, parameters, tmp_path, Settings())


async def test_a_step_that_would_revert_is_refused_by_its_name_and_reason(
    rpc: Rpc, ethereum: Ethereum, deployer: LocalAccount, parameters: Parameters, tmp_path: Path
) -> None:
    """Here the Lockup is a contract that refuses everything."""
    ethereum.anvil.ask("anvil_setCode", SOMEBODY, "0x5f5ffd")
    broken = msgspec.structs.replace(parameters, lockup=SOMEBODY)

    with pytest.raises(Reverted, match=r"^create stream: reverted with no reason"):
        await deployment.deploy(rpc, deployer, broken, tmp_path / "d.json", Silent(), Settings())


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://127.0.0.1:1/secret-key"])
async def test_an_endpoint_that_is_not_there_is_named_without_its_key(url: str) -> None:
    async with connected(url) as rpc:
        with pytest.raises(ChainUnreachable, match=r"^http://127\.0\.0\.1:1: ") as caught:
            await rpc.chain_id()

    assert "secret" not in caught.value.message


def test_the_key_comes_from_a_private_file_or_the_environment(tmp_path: Path) -> None:
    account = key("deployer")
    path = tmp_path / "key"
    path.touch(mode=0o600)
    path.write_text(f"0x{account.key.hex()}\n")

    assert key_from(path, {}).address == account.address
    assert key_from(None, {KEY_VARIABLE: account.key.hex()}).address == account.address


def test_a_key_that_others_can_read_or_that_is_none_is_refused_without_showing_it(tmp_path: Path) -> None:
    secret = key("deployer").key.hex()
    path = tmp_path / "key"
    with pytest.raises(KeyRefused, match="no such file"):
        key_from(path, {})
    path.write_text(secret)
    path.chmod(0o644)
    with pytest.raises(KeyRefused, match="chmod 600"):
        key_from(path, {})
    with pytest.raises(KeyRefused, match=f"--key-file PATH .*{KEY_VARIABLE}"):
        key_from(None, {})
    for wrong in (secret[:-1], secret[:-1] + "x", "ff" * 32, "00" * 32, f"{secret} {secret}"):
        with pytest.raises(KeyRefused) as caught:
            key_from(None, {KEY_VARIABLE: wrong})
        assert secret[:20] not in caught.value.message
        assert caught.value.__cause__ is None
