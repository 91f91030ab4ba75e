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

import httpx
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
STATES_KEPT = 1_000
"""In memory, of as many blocks. Without this anvil keeps ever fewer there and the rest in files, and a reorg that goes
back to a state from a file loses the code of contracts. More blocks than a dead coordinator misses, near a MiB each."""
ROLES_THAT_SEND = ("validator", "liveness", "settler")
EVERYTHING = 2**256 - 1
QUESTIONS_MAX = 200
"""In one request."""
ANSWER_SECONDS = 60.0
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
    http: httpx.Client = field(repr=False)
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

    # Questions --------------------------------------------------------------------------------------------------------

    def rpc(self, method: str, *parameters: object) -> Any:
        """What the chain answers to one call. Raises `ChainFaulty` with its error."""
        return self.rpcs([(method, *parameters)])[0]

    def rpcs(self, questions: Sequence[tuple[object, ...]]) -> list[Any]:
        """Many calls in few requests, each its method and its parameters; the answers in their order."""
        found: list[Any] = []
        for start in range(0, len(questions), QUESTIONS_MAX):
            batch = [
                {"jsonrpc": "2.0", "id": number, "method": method, "params": parameters}
                for number, (method, *parameters) in enumerate(questions[start : start + QUESTIONS_MAX])
            ]
            answers = self.http.post(self.anvil.url, json=batch).json()
            for answer in sorted(answers, key=lambda each: each["id"]):
                if "error" in answer:
                    raise ChainFaulty(f"anvil refused {batch[answer['id']]['method']}: {answer['error']}")
                found.append(answer["result"])
        return found

    def asks(self, questions: Sequence[tuple[Address, Function, tuple[object, ...]]], *, block: int) -> list[Any]:
        """What views say as of `block`: one value each, or a tuple of several."""
        calls = [{"to": to, "data": "0x" + view.encode(arguments).hex()} for to, view, arguments in questions]
        answers = self.rpcs([("eth_call", call, hex(block)) for call in calls])
        values = [
            view.decode(bytes.fromhex(answer[2:])) for (_, view, _), answer in zip(questions, answers, strict=True)
        ]
        return [each[0] if len(each) == 1 else each for each in values]

    @property
    def next_node_id(self) -> int:
        """The one that the next stake gets."""
        return self.ask(self.locker.address, NODE_COUNT) + 1

    # Blocks -----------------------------------------------------------------------------------------------------------

    def mine(self, blocks: int = 1) -> None:
        self.rpc("anvil_mine", hex(blocks))

    @property
    def head(self) -> int:
        return int(self.rpc("eth_blockNumber"), 16)

    def block(self, number: int) -> dict[str, Any]:
        """With the hashes of its transactions."""
        return self._blocks(number, number, whole=False)[0]

    def blocks(self, first: int, last: int) -> list[dict[str, Any]]:
        """With their whole transactions."""
        return self._blocks(first, last, whole=True)

    def _blocks(self, first: int, last: int, *, whole: bool) -> list[dict[str, Any]]:
        found = self.rpcs([("eth_getBlockByNumber", hex(number), whole) for number in range(first, last + 1)])
        if None in found:
            raise ChainFaulty(f"there is no block {first + found.index(None)}")
        return found

    def place(self, transaction_hash: str) -> int | None:
        """The block that holds a transaction; None while none does."""
        receipt = self.rpc("eth_getTransactionReceipt", transaction_hash)
        return None if receipt is None else int(receipt["blockNumber"], 16)

    def ask(self, contract: Address, view: Function, *arguments: object) -> Any:
        """What a view says at the newest block."""
        return self.asks([(contract, view, arguments)], block=self.head)[0]

    # Transactions -----------------------------------------------------------------------------------------------------

    def send(self, sender: LocalAccount, call: Call, *, instead: Call | None = None) -> Sent:
        """Into the pool: the next block takes it, if it is its sender's turn."""
        nonce = int(self.rpc("eth_getTransactionCount", sender.address, "pending"), 16)
        hash_, raw = signed(sender, nonce, call)
        sent = Sent(
            hash=hash_,
            raw=raw,
            sender=sender.address,
            nonce=nonce,
            what=call.function.name,
            instead=signed(sender, nonce, instead) if instead else None,
        )
        self.rpc("eth_sendRawTransaction", raw)
        self.sent[hash_] = sent
        return sent

    def offer(self, raw: str) -> bool:
        """Hands signed bytes to the pool. False where it refuses them: their number is used, or too far ahead."""
        try:
            self.rpc("eth_sendRawTransaction", raw)
        except ChainFaulty:
            return False
        return True

    def do(self, sender: LocalAccount, call: Call) -> list[Log]:
        """Sends and mines. Raises `ChainFaulty` when the contract refuses."""
        sent = self.send(sender, call)
        self.mine()
        receipt = self.rpc("eth_getTransactionReceipt", sent.hash)
        if receipt is None or int(receipt["status"], 16) != 1:
            raise ChainFaulty(f"{sent.what} from {sent.sender} was refused, or not mined")
        return [log_of(each) for each in receipt["logs"]]

    # People -----------------------------------------------------------------------------------------------------------

    def person(self, name: str) -> LocalAccount:
        """An account with PRLX and ETH, which lets vault and locker take what it gives them."""
        if name not in self.people:
            account = account_of(name)
            self.rpc("anvil_setBalance", account.address, hex(1_000 * ETHER))
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
        with httpx.Client(trust_env=False, verify=False, timeout=ANSWER_SECONDS) as http:
            yield ChainWorld(anvil=anvil, http=http, deployment_path=path, deployed=deployed, roles=roles)


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
    return [log_of(each) for each in world.rpc("eth_getLogs", asked)]
