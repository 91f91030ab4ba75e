"""A coordinator on a chain starts with what belongs together, and says in a line what does not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from chained import chained, make_folder, settings_in
from eth_account.signers.local import LocalAccount
from hand_driven import HandNode, scene

import services
from bench.chain_world import ChainWorld, account_of
from lying_endpoint import endpoint_of
from parallelix import private_files
from parallelix.chain import deployment_file
from parallelix.coordinator import app
from parallelix.coordinator.ports import ChainNotUsable

pytestmark = pytest.mark.service


def put_key(path: Path, account: LocalAccount) -> None:
    path.unlink(missing_ok=True)
    private_files.create(path, f"0x{account.key.hex()}\n".encode(), durable=False)


def wrong_key(folder: Path, _world: ChainWorld) -> dict[str, Any]:
    put_key(folder / "settler.key", account_of("a stranger"))
    return {}


def loose_key(folder: Path, _world: ChainWorld) -> dict[str, Any]:
    (folder / "validator.key").chmod(0o644)
    return {}


def no_key(folder: Path, _world: ChainWorld) -> dict[str, Any]:
    (folder / "liveness.key").unlink()
    return {}


def no_file(folder: Path, _world: ChainWorld) -> dict[str, Any]:
    return {"deployment_file": str(folder / "none.json")}


def changed_deployment(folder: Path, world: ChainWorld, **changes: Any) -> dict[str, Any]:
    path = folder / "deployment.json"
    deployment_file.write(path, msgspec.structs.replace(world.deployed, **changes))
    return {"deployment_file": str(path)}


def unfinished(folder: Path, world: ChainWorld) -> dict[str, Any]:
    return changed_deployment(folder, world, complete=False)


def other_chain(folder: Path, world: ChainWorld) -> dict[str, Any]:
    return changed_deployment(folder, world, chain_id=1)


def other_code(folder: Path, world: ChainWorld) -> dict[str, Any]:
    swapped = dict(world.deployed.contracts)
    swapped["CreditVault"] = swapped["PRLX"]
    return changed_deployment(folder, world, contracts=swapped)


def no_endpoint(_folder: Path, _world: ChainWorld) -> dict[str, Any]:
    return {"rpc_url": ""}


def no_url(_folder: Path, _world: ChainWorld) -> dict[str, Any]:
    return {"rpc_url": "ftp://somewhere"}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            wrong_key,
            r"settler: the key is of 0x\w+, the contract wants 0x\w+; put that account's key there, or .*Settler",
        ),
        (loose_key, r"validator\.key: mode 0644 lets others in, must be 0600; run: chmod 600 "),
        (no_key, r"liveness\.key: there is no such file; put the key there as 0x-hex, with mode 0600"),
        (no_file, r"none\.json: there is no such file; `parallelix chain deploy` writes it"),
        (unfinished, r"deployment\.json: the deployment is not finished; run the same `parallelix chain deploy` again"),
        (other_chain, r"the endpoint serves chain 31337, the deployment file is of chain 1; "),
        (other_code, r"CreditVault: the code at 0x\w+ is not that of this release"),
        (no_endpoint, r"no endpoint of chain 31337: give --rpc URL, set PARALLELIX_RPC_URL, or rpc_url in"),
        (no_url, r"'ftp://…' is no http:// or https:// URL of an Ethereum JSON-RPC endpoint"),
    ],
)
async def test_what_does_not_belong_together_is_refused_in_one_line(
    staked_world: ChainWorld, folder: Path, spoil: Callable[[Path, ChainWorld], dict[str, Any]], message: str
) -> None:
    chosen = settings_in(folder, staked_world, **spoil(folder, staked_world))

    with pytest.raises(ChainNotUsable, match=message):
        async with app.running(chosen, log=_quiet, on_fatal=_quiet):
            pytest.fail("it started")

    assert not (folder / "coordinator.db").exists()


async def test_a_store_stays_on_its_chain_or_on_none(
    staked_world: ChainWorld, node: HandNode, folder: Path, tmp_path: Path
) -> None:
    async with chained(staked_world, folder, node):
        pass
    with pytest.raises(ChainNotUsable, match=r"belongs to a network on a chain, read up to block \d+: start it with"):
        async with app.running(settings_in(folder, staked_world, deployment_file=""), log=_quiet, on_fatal=_quiet):
            pytest.fail("it started")

    shutil.rmtree(folder)
    make_folder(staked_world, folder)
    async with scene(folder, batch_records_max=1) as before:
        mine, work, _ = await before.offered()
        await mine.acknowledge(work)
        assert (await mine.return_(mine.result(work))).status_code == 200
    with pytest.raises(ChainNotUsable, match="belongs to a network on no chain, whose records no contract can anchor"):
        async with app.running(settings_in(folder, staked_world), log=_quiet, on_fatal=_quiet):
            pytest.fail("it started")


async def test_an_endpoint_that_does_not_answer_is_no_obstacle_and_money_waits_for_it(
    staked_world: ChainWorld, folder: Path
) -> None:
    told: list[str] = []
    nowhere = f"http://127.0.0.1:{services.free_port()}"

    async with app.running(
        settings_in(folder, staked_world, rpc_url=nowhere),
        log=lambda name, _fields: told.append(name),
        on_fatal=_quiet,
    ) as coordinator:
        network = await coordinator.network()
        assert (network.block, network.chain_id) == (None, 31337)
        assert network.contracts["CreditVault"] == staked_world.vault.address

    assert told[:2] == ["chain.failed", "coordinator.started"]


async def test_an_endpoint_that_does_not_know_the_contracts_yet_is_given_time(
    staked_world: ChainWorld, folder: Path
) -> None:
    async with endpoint_of(staked_world.anvil.url) as endpoint:

        def forgetful(method: str, _parameters: list[Any], result: Any) -> Any:
            return "0x" if method == "eth_getCode" and endpoint.asked[method] <= 7 else result

        endpoint.twist = forgetful
        async with app.running(settings_in(folder, staked_world, rpc_url=endpoint.url), log=_quiet, on_fatal=_quiet):
            assert endpoint.asked["eth_getCode"] > 7


def test_the_command_says_it_in_one_line_and_the_endpoint_comes_from_the_environment(
    staked_world: ChainWorld, folder: Path
) -> None:
    (folder / "settler.key").unlink()
    (folder / "coordinator.toml").write_text(f'deployment_file = "{staked_world.deployment_path}"\nport = 0\n')
    environment = {**os.environ, "PARALLELIX_RPC_URL": staked_world.anvil.url}

    done = subprocess.run(
        [sys.executable, "-m", "parallelix.coordinator", str(folder)],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )

    assert done.returncode == 1
    assert done.stderr == f"{folder}/settler.key: there is no such file; put the key there as 0x-hex, with mode 0600\n"


def _quiet(*_anything: object) -> None:
    pass
