from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from chain_scene import Ethereum, Silent, funded, key, named_roles
from eth_account.signers.local import LocalAccount

import services
from parallelix.chain import deployment, sablier
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

        deployed = sablier.deploy(sablier.read_packages(sablier_folder), create, admin=rich)
        yield Ethereum(anvil=chain, lockup=deployed.lockup)


@pytest.fixture
def ethereum(shared_ethereum: Ethereum) -> Iterator[Ethereum]:
    with shared_ethereum.undone():
        yield shared_ethereum


@pytest.fixture
async def rpc(ethereum: Ethereum) -> AsyncIterator[Rpc]:
    async with connected(ethereum.url) as endpoint:
        yield endpoint


@pytest.fixture
def deployer(ethereum: Ethereum) -> LocalAccount:
    return funded(ethereum.anvil, key("deployer"))


@pytest.fixture
def parameters(ethereum: Ethereum) -> Parameters:
    """Those of the public network, with an account of its own for each role."""
    return named_roles(lockup=ethereum.lockup)


@pytest.fixture
async def deployed(rpc: Rpc, deployer: LocalAccount, parameters: Parameters, tmp_path: Path) -> Deployment:
    path = tmp_path / "deployment.json"
    return await deployment.deploy(rpc, deployer, parameters, path, Silent(), deployment.Settings())
