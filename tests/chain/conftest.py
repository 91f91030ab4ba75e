from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from chain_scene import Silent, funded, key, named_roles
from eth_account.signers.local import LocalAccount

import services
from parallelix.chain import deployment, sablier
from parallelix.chain.abi import Address
from parallelix.chain.deployment_file import Deployment, Parameters
from parallelix.chain.rpc import Rpc, connected


@dataclass(frozen=True, kw_only=True)
class Ethereum:
    """A real anvil with a real Sablier Lockup on it."""

    anvil: services.Anvil
    lockup: Address

    @property
    def url(self) -> str:
        return self.anvil.url


@pytest.fixture(scope="session")
def shared_ethereum(sablier_folder: Path) -> Iterator[Ethereum]:
    """Ask for `ethereum`: this one is shared, and only safe because each test is undone."""
    with services.anvil() as chain:
        rich = chain.ask("eth_accounts")[0]

        def create(code: bytes) -> Address:
            sent = chain.ask("eth_sendTransaction", {"from": rich, "data": "0x" + code.hex()})
            return chain.ask("eth_getTransactionReceipt", sent)["contractAddress"]

        deployed = sablier.deploy(sablier.read_packages(sablier_folder), create, admin=rich)
        yield Ethereum(anvil=chain, lockup=deployed.lockup)


@pytest.fixture
def ethereum(shared_ethereum: Ethereum) -> Iterator[Ethereum]:
    before = shared_ethereum.anvil.ask("evm_snapshot")
    yield shared_ethereum
    shared_ethereum.anvil.ask("evm_revert", before)


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
