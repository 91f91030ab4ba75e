"""A chain of our own with all contracts on it, whose blocks come when we say so, and the people who use it.

Everybody here signs their own transactions, as they would anywhere. The blocks are ours, so that a reorg can put others
in their place: what was sent is kept, and for some of it another transaction that could have been sent instead.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from eth_account import Account
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak

from parallelix.chain import deployment
from parallelix.chain.abi import Address, Call, Function, Log
from parallelix.chain.bindings.credit_vault import CreditVaultCalls
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls
from parallelix.chain.bindings.prlx import PRLXCalls
from parallelix.chain.deployment_file import ROLES, Deployment, Parameters, StepEntry
from parallelix.chain.rpc import Fees, connected
from parallelix.chain.wallet import sign
from parallelix.devnet.network import CHAIN_ID

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(REPOSITORY / "tests")]

import services  # noqa: E402

TOKEN = 10**18
ETHER = 10**18
GWEI = 10**9
GAS = 1_500_000
"""For any call here; a block takes twenty of them."""
FEES = Fees(most_wei=100 * GWEI, tip_wei=GWEI)
"""Many times what anvil's empty blocks come to cost."""
WITHDRAWAL_DELAY_SECONDS = 2
"""Long enough for spending to be settled meanwhile, short enough to be waited for."""
STALE_SECONDS = 3
"""So that a report on nodes is due every second."""
PURSE_WEI = 1_000_000 * TOKEN
"""What each person begins with: more than a run can deposit."""
STATES_KEPT = 2_000
"""In memory, of as many blocks. Without this anvil keeps ever fewer there and the rest in files, and a reorg that goes
back to a state from a file loses the code of contracts. Far more blocks than a dead coordinator misses."""
ROLES_THAT_SEND = ("validator", "liveness", "settler")
EVERYTHING = 2**256 - 1
NODE_COUNT = Function("nodeCount", (), ("uint256",))


class ChainFaulty(Exception):
    """The chain did not do what was asked of it, so nothing was tried."""


@dataclass(frozen=True, kw_only=True)
class Sent:
    """A signed transaction, and what its sender could have sent in its place."""

    hash: str
    raw: str
    sender: Address
    nonce: int
    what: str
    instead: tuple[str, str] | None = None
    """Hash and bytes of the other one, of the same sender and nonce."""


@dataclass(kw_only=True)
class ChainWorld:
    """`people` are requesters, by name; `roles` the keys that a coordinator holds, and the owner's."""

    anvil: services.Anvil
    deployment_path: Path
    deployed: Deployment
    roles: dict[str, LocalAccount]
    people: dict[str, LocalAccount] = field(default_factory=dict[str, LocalAccount])
    sent: dict[str, Sent] = field(default_factory=dict[str, Sent], repr=False)

    # Contracts --------------------------------------------------------------------------------------------------------

    @property
    def vault(self) -> CreditVaultCalls:
        return CreditVaultCalls(self.deployed.address("CreditVault"))

    @property
    def locker(self) -> NodeRegistryLockerCalls:
        return NodeRegistryLockerCalls(self.deployed.address("NodeRegistryLocker"))

    @property
    def token(self) -> PRLXCalls:
        return PRLXCalls(self.deployed.address("PRLX"))

    @property
    def next_node_id(self) -> int:
        """The one that the next stake gets."""
        return self.ask(self.locker.address, NODE_COUNT) + 1

    # Blocks -----------------------------------------------------------------------------------------------------------

    def mine(self, blocks: int = 1) -> None:
        self.anvil.ask("anvil_mine", hex(blocks))

    @property
    def head(self) -> int:
        return int(self.anvil.ask("eth_blockNumber"), 16)

    def block(self, number: int, *, whole: bool = False) -> dict[str, Any]:
        """`whole`: with its transactions, not only their hashes."""
        found = self.anvil.ask("eth_getBlockByNumber", hex(number), whole)
        if found is None:
            raise ChainFaulty(f"there is no block {number}")
        return found

    def place(self, transaction_hash: str) -> int | None:
        """The block that holds a transaction; None while none does."""
        receipt = self.anvil.ask("eth_getTransactionReceipt", transaction_hash)
        return None if receipt is None else int(receipt["blockNumber"], 16)

    def ask(self, contract: Address, view: Function, *arguments: object, block: int | None = None) -> Any:
        """What a view says, at the newest block or at `block`: one value, or a tuple of several."""
        call = {"to": contract, "data": "0x" + view.encode(arguments).hex()}
        answer = self.anvil.ask("eth_call", call, "latest" if block is None else hex(block))
        values = view.decode(bytes.fromhex(answer[2:]))
        return values[0] if len(values) == 1 else values

    # Transactions -----------------------------------------------------------------------------------------------------

    def send(self, sender: LocalAccount, call: Call, *, instead: Call | None = None) -> Sent:
        """Into the pool: the next block takes it, if it is its sender's turn."""
        nonce = int(self.anvil.ask("eth_getTransactionCount", sender.address, "pending"), 16)
        hash_, raw = signed(sender, nonce, call)
        sent = Sent(
            hash=hash_,
            raw=raw,
            sender=sender.address,
            nonce=nonce,
            what=call.function.name,
            instead=signed(sender, nonce, instead) if instead else None,
        )
        self.anvil.ask("eth_sendRawTransaction", raw)
        self.sent[hash_] = sent
        return sent

    def offer(self, raw: str) -> bool:
        """Hands signed bytes to the pool. False where it refuses them: their number is used, or too far ahead."""
        try:
            self.anvil.ask("eth_sendRawTransaction", raw)
        except RuntimeError:
            return False
        return True

    def do(self, sender: LocalAccount, call: Call) -> list[Log]:
        """Sends and mines. Raises `ChainFaulty` when the contract refuses."""
        sent = self.send(sender, call)
        self.mine()
        receipt = self.anvil.ask("eth_getTransactionReceipt", sent.hash)
        if receipt is None or int(receipt["status"], 16) != 1:
            raise ChainFaulty(f"{sent.what} from {sent.sender} was refused, or not mined")
        return [log_of(each) for each in receipt["logs"]]

    # People -----------------------------------------------------------------------------------------------------------

    def person(self, name: str) -> LocalAccount:
        """An account with PRLX and ETH, which lets vault and locker take what it gives them."""
        if name not in self.people:
            account = account_of(name)
            self.anvil.ask("anvil_setBalance", account.address, hex(1_000 * ETHER))
            self.do(self.roles["owner"], self.token.transfer(account.address, PURSE_WEI))
            for contract in (self.vault.address, self.locker.address):
                self.do(account, self.token.approve(contract, EVERYTHING))
            self.people[name] = account
        return self.people[name]


@contextmanager
def chain_world(folder: Path) -> Generator[ChainWorld]:
    """Everything deployed on an anvil that mines when told to. The owner is the deployer and holds the supply."""
    folder.mkdir(parents=True, exist_ok=True)
    with services.anvil("--prune-history", str(STATES_KEPT)) as anvil:
        roles = {role: account_of(role) for role in ROLES}
        for account in roles.values():
            anvil.ask("anvil_setBalance", account.address, hex(1_000 * ETHER))
        path = folder / "deployment.json"
        deployed = asyncio.run(deployed_on(anvil.url, roles, path))
        anvil.ask("evm_setAutomine", False)
        yield ChainWorld(anvil=anvil, deployment_path=path, deployed=deployed, roles=roles)


async def deployed_on(url: str, roles: dict[str, LocalAccount], path: Path) -> Deployment:
    """Without Sablier: what is tried here is money of requesters, and the rewards live on their usage."""
    named: dict[str, Any] = {role: account.address for role, account in roles.items()}
    parameters = Parameters(**named, withdrawal_delay_seconds=WITHDRAWAL_DELAY_SECONDS, stale_seconds=STALE_SECONDS)
    async with connected(url) as rpc:
        return await deployment.deploy(rpc, roles["owner"], parameters, path, _Silent(), deployment.Settings())


class _Silent:
    def waiting(self, step: str, what: str) -> None:
        pass

    def done(self, entry: StepEntry, contract: Address) -> None:
        pass


def account_of(name: str) -> LocalAccount:
    """The same account for the same name, on every run."""
    return Account.from_key(keccak(text=f"parallelix chain faults: {name}"))


def signed(sender: LocalAccount, nonce: int, call: Call) -> tuple[str, str]:
    """Hash and bytes, both hex."""
    made = sign(sender, chain_id=CHAIN_ID, nonce=nonce, to=call.to, data=call.data, gas=GAS, fees=FEES)
    return made.transaction_hash, made.raw


def log_of(found: dict[str, Any]) -> Log:
    return Log(
        address=found["address"],
        topics=tuple(bytes.fromhex(each[2:]) for each in found["topics"]),
        data=bytes.fromhex(found["data"][2:]),
        block_number=int(found["blockNumber"], 16),
        transaction_hash=found["transactionHash"],
        log_index=int(found["logIndex"], 16),
    )


def logs_of(world: ChainWorld, addresses: Sequence[Address], first: int, last: int) -> list[Log]:
    """All logs of these contracts in blocks `first` to `last`, in order."""
    asked = {"address": list(addresses), "fromBlock": hex(first), "toBlock": hex(last)}
    return [log_of(each) for each in world.anvil.ask("eth_getLogs", asked)]
