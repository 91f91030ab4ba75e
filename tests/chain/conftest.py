from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from chain_scene import Ethereum, Silent, funded, key, named_roles
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

import services
from parallelix.chain import deployment, deployment_file, sablier
from parallelix.chain.abi import Address
from parallelix.chain.deployment_file import Deployment, Parameters
from parallelix.chain.rpc import Rpc, connected


@pytest.fixture(scope="session")
def shared_ethereum(sablier_folder: Path) -> Iterator[Ethereum]:
    """Ask for `ethereum`: this one is shared, and only safe because each test is undone."""
    with services.anvil() as chain:
        rich = chain.ask("eth_accounts")[0]

        def create(code: bytes) -> Address:
            sent = chain.ask("eth_sendTransaction", {"from": rich, "data": "0x" + code.hex()})
            # anvil answers before the block is there.
            while (receipt := chain.ask("eth_getTransactionReceipt", sent)) is None:
                time.sleep(0.005)
            return receipt["contractAddress"]

        made = sablier.deploy(sablier.read_packages(sablier_folder), create, admin=rich)
        yield Ethereum(anvil=chain, lockup=to_checksum_address(made.lockup))


@pytest.fixture(scope="session")
def shared_deployment(shared_ethereum: Ethereum, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a deployment that stands on the chain in every test, made by `key("deployer")`."""
    path = tmp_path_factory.mktemp("chain") / "deployment.json"
    deploy_aside(shared_ethereum, funded(shared_ethereum.anvil, key("deployer")), path)
    return path


@pytest.fixture(scope="session")
def undisturbed(
    shared_ethereum: Ethereum, shared_deployment: Path, tmp_path_factory: pytest.TempPathFactory
) -> Deployment:
    """What the `deployer` of a test makes in one run."""
    with shared_ethereum.undone():
        path = tmp_path_factory.mktemp("undisturbed") / "deployment.json"
        return deploy_aside(shared_ethereum, funded(shared_ethereum.anvil, key("another deployer")), path)


def deploy_aside(ethereum: Ethereum, deployer: LocalAccount, path: Path) -> Deployment:
    """In a thread with a loop of its own, as the test's loop is not there yet."""

    async def work() -> Deployment:
        async with connected(ethereum.url) as endpoint:
            given = named_roles(lockup=ethereum.lockup)
            return await deployment.deploy(endpoint, deployer, given, path, Silent(), deployment.Settings())

    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work()).result()


@pytest.fixture
def ethereum(shared_ethereum: Ethereum, shared_deployment: Path) -> Iterator[Ethereum]:
    with shared_ethereum.undone():
        yield shared_ethereum


@pytest.fixture
async def rpc(ethereum: Ethereum) -> AsyncIterator[Rpc]:
    async with connected(ethereum.url) as endpoint:
        yield endpoint


@pytest.fixture
def deployer(ethereum: Ethereum) -> LocalAccount:
    """Has deployed nothing yet."""
    return funded(ethereum.anvil, key("another deployer"))


@pytest.fixture
def parameters(ethereum: Ethereum) -> Parameters:
    """Those of the public network, with an account of its own for each role."""
    return named_roles(lockup=ethereum.lockup)


@pytest.fixture
def deployment_path(shared_deployment: Path, tmp_path: Path) -> Path:
    """A copy of the file of what stands on the chain."""
    return Path(shutil.copy(shared_deployment, tmp_path))


@pytest.fixture
def deployed(ethereum: Ethereum, deployment_path: Path) -> Deployment:
    """What stands on the chain."""
    found = deployment_file.read(deployment_path)
    assert found is not None
    return found
