"""A network's own chain: anvil with the five contracts, a wallet for everybody, stakes and deposits.

    FOLDER/chain/anvil.json        the chain, while it does not run
    FOLDER/chain/deployment.json   what stands where
    FOLDER/keys/NAME.key           wallets: owner, requester, operator1 and so on
    FOLDER/coordinator/ROLE.key    those that the coordinator sends with

Nothing is done twice: what the chain shows as done is left as it is.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address

from parallelix import private_files
from parallelix.chain import deployment as deploying
from parallelix.chain import deployment_file, sablier
from parallelix.chain.abi import Address, Call, events_of
from parallelix.chain.bindings.credit_vault import CreditVaultCalls
from parallelix.chain.bindings.node_registry_locker import (
    NodeRegistered,
    NodeRegistryLockerCalls,
    NodeRegistryLockerViews,
)
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import Deployment, Parameters, StepEntry
from parallelix.chain.plan import LOCKER, TOKEN, VAULT
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.wallet import Wallet, key_from
from parallelix.devnet.anvil import Anvil
from parallelix.devnet.processes import ProcessError

OWNER = "owner"
"""Deploys, and holds what is left of the supply."""
COORDINATOR_ROLES = ("validator", "liveness", "settler")
FEES_WEI = 1_000 * 10**18
"""ETH for each wallet, which costs nothing here."""
HARDWARE_TIER = 1
RECEIPT_SECONDS = 30.0
POLL_SECONDS = 0.01

Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainPlan:
    """`sablier` is the folder of its npm packages; without it there is no bootstrap stream. `port` 0 takes a free one,
    and `block_seconds` is how often there is a block without a transaction."""

    anvil: Path
    sablier: Path | None
    port: int = 0
    block_seconds: int = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Stake:
    """A node as the locker has it. `withdrawable_at` is Unix seconds, 0 while it is active."""

    node_id: int
    active: bool
    withdrawable_at: int


class LocalChain:
    """The chain below a network's folder. `start` comes first; every method may raise `ChainError`."""

    def __init__(self, plan: ChainPlan, folder: Path, *, port: int) -> None:
        self.folder = folder / "chain"
        self.anvil = Anvil(plan.anvil, self.folder, port=port, block_seconds=plan.block_seconds)
        self._plan = plan
        self._root = folder
        self._deployment: Deployment | None = None

    @property
    def url(self) -> str:
        return self.anvil.url

    @property
    def deployment_path(self) -> Path:
        return self.folder / "deployment.json"

    @property
    def deployment(self) -> Deployment:
        assert self._deployment is not None, "start comes first"
        return self._deployment

    def key_file(self, name: str) -> Path:
        """Of the wallet `name`, made where it is not there."""
        folder = self._root / ("coordinator" if name in COORDINATOR_ROLES else "keys")
        private_files.make_folder(folder)
        path = folder / f"{name}.key"
        if not path.exists():
            private_files.create(path, f"0x{secrets.token_hex(32)}\n".encode())
        return path

    def account(self, name: str) -> LocalAccount:
        return key_from(self.key_file(name), {})

    async def start(self, tell: Tell) -> None:
        """Starts anvil, and deploys the contracts where they are not there yet. Raises `ProcessError`."""
        await self.anvil.start()
        async with connected(self.url) as rpc:
            found = deployment_file.read(self.deployment_path)
            await self._require_blocks(rpc, found)
            if found is None:
                for name in (OWNER, *COORDINATOR_ROLES):
                    await self._give_fees(rpc, self.account(name).address)
            parameters = self._parameters(await self._lockup() if found is None else found.parameters.lockup)
            owner, settings = self.account(OWNER), deploying.Settings()
            path, shown = self.deployment_path, _Shown(tell)
            self._deployment = await deploying.deploy(rpc, owner, parameters, path, shown, settings)

    async def stop(self) -> None:
        await self.anvil.stop()

    def require_running(self) -> None:
        """Raises `ProcessError` where anvil has ended."""
        process = self.anvil.process
        if process is None or not process.running:
            ending = f"ended with {process.exit_code}:\n{process.tail()}" if process else "was not started"
            raise ProcessError(
                f"the chain {ending.strip()}; blocks that it had not written down are lost: begin again in another "
                "--folder"
            )

    async def require_block(self, number: int, block_hash: str) -> None:
        """Raises `ProcessError` where the chain does not have this block, which somebody relies on."""
        async with self.connected() as rpc:
            found = await rpc.block(number)
        if found is None or found.hash != block_hash:
            raise ProcessError(
                f"{self.folder}: the coordinator has taken in block {number}, and the chain has lost it; it was not "
                "stopped in order, and its newest blocks are gone: choose another --folder"
            )

    async def stake(self, wallet: str, node_key_hash: bytes, amount_wei: int) -> Stake:
        """The newest node of this key; a new one where there is none, staked by a wallet that is given the tokens."""
        async with self.connected() as rpc:
            found = await self._staked(rpc, node_key_hash)
            if found is not None:
                return found
            locker = NodeRegistryLockerCalls(self.deployment.address(LOCKER))
            await self.fund(wallet, amount_wei)
            await self.send(wallet, self._token.approve(locker.address, amount_wei))
            receipt = await self.send(wallet, locker.register_node(amount_wei, HARDWARE_TIER, node_key_hash))
        (registered,) = events_of(receipt.logs, NodeRegistered)
        return Stake(node_id=registered.node_id, active=True, withdrawable_at=0)

    async def fund(self, wallet: str, amount_wei: int) -> None:
        """Gives a wallet PRLX and what it needs for fees."""
        await self.pays_fees(wallet)
        await self.send(OWNER, self._token.transfer(self.account(wallet).address, amount_wei))

    async def pays_fees(self, wallet: str) -> None:
        """Gives a wallet ETH."""
        async with self.connected() as rpc:
            await self._give_fees(rpc, self.account(wallet).address)

    async def deposit(self, wallet: str, amount_wei: int) -> Receipt:
        vault = CreditVaultCalls(self.deployment.address(VAULT))
        await self.send(wallet, self._token.approve(vault.address, amount_wei))
        return await self.send(wallet, vault.deposit(amount_wei))

    async def is_new(self, wallet: str) -> bool:
        """Whether it has sent nothing yet."""
        async with self.connected() as rpc:
            return await rpc.nonce(self.account(wallet).address) == 0

    async def send(self, wallet: str, call: Call) -> Receipt:
        """Returns when it is in a block."""
        async with self.connected() as rpc:
            return await Wallet(rpc, self.account(wallet)).send(call)

    @asynccontextmanager
    async def connected(self) -> AsyncGenerator[Rpc]:
        async with connected(self.url) as rpc:
            yield rpc

    @property
    def _token(self) -> PRLXCalls:
        return PRLXCalls(self.deployment.address(TOKEN))

    async def _require_blocks(self, rpc: Rpc, found: Deployment | None) -> None:
        """A chain that lost blocks is behind the coordinator's store, and nothing here can bring them back."""
        last = max((entry.block_number for entry in found.steps), default=0) if found else 0
        height = await rpc.block_number()
        if height < last:
            raise ProcessError(
                f"{self.folder}: the chain ends at block {height}, its contracts were deployed up to block {last}; it"
                " was not stopped in order, and its blocks are lost: choose another --folder"
            )

    async def _give_fees(self, rpc: Rpc, address: Address) -> None:
        await rpc.request("anvil_setBalance", address, hex(FEES_WEI))

    async def _lockup(self) -> Address:
        """Sablier's real Lockup, deployed here; empty without its packages."""
        if self._plan.sablier is None:
            return ""
        packages = sablier.read_packages(self._plan.sablier)
        return await asyncio.to_thread(_deploy_lockup, self.url, packages)

    def _parameters(self, lockup: Address) -> Parameters:
        def address(name: str) -> Address:
            return self.account(name).address

        return Parameters(
            owner=address(OWNER),
            validator=address("validator"),
            liveness=address("liveness"),
            settler=address("settler"),
            guardian=address("guardian"),
            treasury=address("treasury"),
            infrastructure=address("infrastructure"),
            lockup=lockup,
        )

    async def _staked(self, rpc: Rpc, node_key_hash: bytes) -> Stake | None:
        views = NodeRegistryLockerViews(rpc, self.deployment.address(LOCKER))
        for node_id in range(await views.node_count(), 0, -1):
            node = await views.nodes(node_id)
            if node.node_key_hash == node_key_hash:
                active = await views.node_of_key(node_key_hash) == node_id
                return Stake(node_id=node_id, active=active, withdrawable_at=node.withdrawable_at)
        return None


class _Shown:
    """A deployment's progress, in one line that changes."""

    def __init__(self, tell: Tell) -> None:
        self._tell = tell

    def waiting(self, step: str, what: str) -> None:
        self._tell(f"deploying: {step}: {what}")

    def done(self, entry: StepEntry, contract: Address) -> None:
        self._tell(f"deployed: {entry.name} {contract}".rstrip())


def _deploy_lockup(url: str, packages: sablier.Packages) -> Address:
    """From an account that anvil itself can sign for."""
    with httpx.Client(base_url=url, trust_env=False, verify=False, timeout=RECEIPT_SECONDS) as http:

        def ask(method: str, *parameters: object) -> Any:
            question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
            answer = http.post("/", json=question).raise_for_status().json()
            if "error" in answer:
                raise ProcessError(f"anvil refused {method}: {answer['error']}")
            return answer["result"]

        rich = ask("eth_accounts")[0]

        def create(code: bytes) -> Address:
            sent = ask("eth_sendTransaction", {"from": rich, "data": f"0x{code.hex()}"})
            for _ in range(round(RECEIPT_SECONDS / POLL_SECONDS)):
                receipt = ask("eth_getTransactionReceipt", sent)
                if receipt is not None:
                    return to_checksum_address(receipt["contractAddress"])
                time.sleep(POLL_SECONDS)
            raise ProcessError(f"anvil put {sent} into no block within {RECEIPT_SECONDS:g} s")

        return sablier.deploy(packages, create, admin=rich).lockup
