"""What a chain adds to the demonstration: a deposit's whole way and a stake's, each step looked at in the contracts.

Every act ends in a claim, with the faults that were made on purpose beside it: each must be refused, or noticed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import msgspec

from parallelix.chain import anchored, records_audit, rewards_table
from parallelix.chain.abi import E_, Address, Call, Log, events_of
from parallelix.chain.bindings.credit_vault import CreditVaultCalls, CreditVaultViews, Spend, SpendSplit
from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerCalls, NodeRegistryLockerViews
from parallelix.chain.bindings.operator_stake_rewards import (
    OperatorStakeRewardsV2Calls,
    OperatorStakeRewardsV2Views,
    RewardsClaimed,
)
from parallelix.chain.bindings.prlx import PRLXViews
from parallelix.chain.errors import (
    BadResult,
    ClearanceNonceNotNext,
    ClearanceNotFromSettler,
    CooldownNotOver,
    NoSuchRewardsNode,
    NotNodeOwner,
    NotSettler,
    StakeAlreadyWithdrawn,
)
from parallelix.chain.plan import LOCKER, REWARDS, TOKEN, VAULT
from parallelix.chain.rewards_table import RewardsTable
from parallelix.chain.rpc import Rpc
from parallelix.devnet.chain import LocalChain
from parallelix.devnet.evidence import Evidence
from parallelix.devnet.network import REQUESTER_WALLET, Network, Seat, operator_wallet, registration
from parallelix.devnet.processes import Child
from parallelix.devnet.wallet_calls import CallRefused, WalletCalls
from parallelix.protocol import audit_log, record_export
from parallelix.protocol.accounts import ClearanceView
from parallelix.protocol.audit_log import PublicEpoch
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.receipts import Receipt
from parallelix.protocol.records import AuditRecord, ExecutionRecord, Record, decode_record
from parallelix.protocol.registry import MINIMUM_STAKE_WEI
from parallelix.terminal import Console

T = TypeVar("T")

WAIT_SECONDS = 120.0
"""For the slowest of what is waited for: a node counts as online after three of its ten-second slots."""
POLL_SECONDS = 0.2
CONFIRMATIONS = 1
COOLDOWN_SECONDS = 7 * 86_400
STRANGER = "stranger"
NO_NODE = 4_000_000_000
SHARES_PERCENT = {"treasury": 10, "infrastructure": 5}
"""Of what is settled; the operators get the rest."""
TOKEN_WEI = 10**18


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """One act: what was found, in words and in figures; `faults` is what of it does not hold."""

    name: str
    text: str
    facts: dict[str, Any]
    faults: tuple[str, ...]


class CircleBroken(Exception):
    """An act could not be played. The message says what was waited for."""


class Leaky(Rpc):
    """An endpoint that keeps claims to itself."""

    async def logs(
        self, *, addresses: Sequence[Address], topics: Sequence[bytes], first_block: int, last_block: int
    ) -> list[Log]:
        found = await super().logs(addresses=addresses, topics=topics, first_block=first_block, last_block=last_block)
        return [log for log in found if log.topics[0] != RewardsClaimed.LAYOUT.topic]


@asynccontextmanager
async def circle(console: Console, network: Network) -> AsyncGenerator[Circle]:
    """The play around a network whose chain has been started."""
    chain = network.chain
    assert chain is not None
    async with chain.connected() as rpc, WalletCalls(network.url, chain.account(REQUESTER_WALLET)) as calls:
        yield Circle(console, network, chain, rpc, calls)


class Circle:
    """The acts, in their order: `begins`, then the requests, then `ends`."""

    def __init__(self, console: Console, network: Network, chain: LocalChain, rpc: Rpc, calls: WalletCalls) -> None:
        self.claims: list[Claim] = []
        self.controls: list[tuple[str, bool]] = []
        self.table: RewardsTable | None = None
        """What the nodes had earned when one of them claimed."""
        self._console, self._network, self._chain, self._rpc, self._calls = console, network, chain, rpc, calls
        address = chain.deployment.address
        self._tokens = PRLXViews(rpc, address(TOKEN))
        self._lockers = NodeRegistryLockerViews(rpc, address(LOCKER))
        self._locker = NodeRegistryLockerCalls(address(LOCKER))
        self._rewarding = OperatorStakeRewardsV2Views(rpc, address(REWARDS))
        self._rewards = OperatorStakeRewardsV2Calls(address(REWARDS))
        self._vaults = CreditVaultViews(rpc, address(VAULT))
        self._vault = CreditVaultCalls(address(VAULT))
        self._requester = chain.account(REQUESTER_WALLET).address

    async def begins(self, deposit_wei: int) -> str:
        """The requester signs in and deposits. The API key that it makes then."""
        await self._signs_in()
        await self._deposits(deposit_wei)
        return await self._calls.new_key("demo")

    async def ends(self, found: Evidence, *, stays: int, leaves: int, removed: int) -> None:
        """All that comes after the answers: `stays` and `leaves` are seats of honest nodes that run, `removed` that of
        one that the coordinator gives no more work."""
        impostor = self._start_impostor(stays)
        try:
            await self._is_anchored(found)
            await self._receipts_hold(found)
            await self._audits_hold(found)
            await self._is_settled(found)
            await self._earn((stays, leaves), removed)
            await self._claims(leaves)
            await self._is_turned_away(impostor)
        finally:
            await impostor.stopped()
        await self._leaves(leaves)
        await self._takes_its_stake(leaves)
        await self._takes_the_rest(found)

    # The requester comes ----------------------------------------------------------------------------------------------

    async def _signs_in(self) -> None:
        self._console.live("signing in")
        await self._chain.pays_fees(STRANGER)
        message = await self._calls.message()
        stranger = self._chain.account(STRANGER)
        controls = {
            "a sign-in that another wallet signed": await _called_off(
                self._calls.sign_in(message, signer=stranger), "wrong_signer"
            )
        }
        await self._calls.sign_in(message)
        controls["the same sign-in a second time"] = await _called_off(self._calls.sign_in(message), "used_nonce")
        text = f"{_short(self._requester)} signed in with its wallet"
        self._claim("sign-in", text, {}, controls, account=self._requester)

    async def _deposits(self, deposit_wei: int) -> None:
        self._console.live("depositing")
        controls = {"an API key without a deposit": await _called_off(self._calls.new_key("demo"), "no_deposit")}
        receipt = await self._chain.deposit(REQUESTER_WALLET, deposit_wei)

        async def credited() -> bool:
            return int((await self._calls.account()).available_wei) > 0

        await self._until("the deposit is credited", credited)
        account, vault_wei = await self._calls.account(), await self._vaults.deposits(self._requester)
        holds = {
            "credits are the deposit": int(account.available_wei) == vault_wei == deposit_wei,
            "the vault holds them": await self._balance_wei(self._vaults.address) == deposit_wei,
        }
        text = f"{_prlx(deposit_wei)} deposited in block {receipt.block_number}, and credited"
        facts = {"deposit_wei": str(deposit_wei), "transaction": receipt.transaction_hash}
        self._claim("deposit", text, holds, controls, **facts)

    # Records ----------------------------------------------------------------------------------------------------------

    async def _is_anchored(self, found: Evidence) -> None:
        self._console.live("reading the anchor")
        there = await anchored.read_anchored(self._rpc, self._chain.deployment, confirmations=CONFIRMATIONS)
        batches = [each.batch for each in there.batches]
        header = record_export.Header(chain_id=there.chain_id, anchor=there.anchor)
        records = [decode_record(data) for data in found.chain]

        def holds(chain: list[Record]) -> bool:
            lines = record_export.lines_of(header, batches, chain)
            audit = records_audit.audit(lines, batches, chain_id=there.chain_id, anchor=there.anchor)
            return audit.holds and audit.covered == len(records)

        edited: Record = msgspec.structs.replace(records[-1], finished_at=records[-1].finished_at + 1)
        controls = {
            "an anchored record altered": not holds([*records[:-1], edited]),
            "an anchored record left out": not holds(records[1:]),
            "two anchored records swapped": not holds([records[1], records[0], *records[2:]]),
        }
        text = f"{len(records)} records anchored on-chain in {len(batches)} batches, none altered or left out"
        transactions = [each.transaction_hash for each in there.batches]
        self._claim("anchor", text, {"all records are as anchored": holds(records)}, controls, batches=transactions)

    async def _receipts_hold(self, found: Evidence) -> None:
        self._console.live("verifying receipts from the chain")
        receipts = list(found.receipts.values())
        batch = receipts[0].batch
        if batch is None:
            raise CircleBroken("no batch of the first receipt was confirmed in time")
        proven = [await self._is_proven(receipt) for receipt in receipts]
        first, second = receipts[0], receipts[1]
        record = msgspec.structs.replace(first.record, result_hash=second.record.result_hash)
        unanchored = msgspec.structs.replace(batch, number=batch.number + 1_000)
        tampered = {
            "a receipt whose record was altered": msgspec.structs.replace(first, record=record),
            "a receipt with another one's proof": msgspec.structs.replace(first, proof=second.proof),
            "a receipt of a batch that is not anchored": msgspec.structs.replace(first, batch=unanchored),
        }
        controls = {name: not await self._is_proven(receipt) for name, receipt in tampered.items()}
        cheaper = msgspec.structs.replace(first, charge_wei="1")
        passed, passed_cheaper = await asyncio.gather(self._is_verified(first), self._is_verified(cheaper))
        controls["a receipt whose charge was altered"] = not passed_cheaper
        holds = {"every receipt is proven": all(proven), "`receipt verify` says so, too": passed}
        text = f"{sum(proven)} of {len(receipts)} receipts verified from the chain alone"
        self._claim("receipts", text, holds, controls, receipts=len(receipts))

    async def _audits_hold(self, found: Evidence) -> None:
        self._console.live("waiting for the epochs' secrets")
        records = [decode_record(data) for data in found.chain]
        drawn_in = {each.epoch for each in records if isinstance(each, ExecutionRecord)}
        epochs: list[PublicEpoch] = []

        async def shown() -> bool:
            epochs[:] = await anchored.read_epochs(self._rpc, self._chain.deployment)
            return drawn_in <= {each.epoch.epoch for each in epochs if each.epoch.secret}

        await self._until("the secrets of all epochs are shown", shown)
        there = await anchored.read_anchored(self._rpc, self._chain.deployment, confirmations=CONFIRMATIONS)
        batches = [audit_log.AnchoredUntil(last=each.batch.last, block=each.block) for each in there.batches]

        def holds(chain: Sequence[Record], public: Sequence[PublicEpoch]) -> bool:
            return audit_log.check(chain, public, pending_ms=0, batches=batches, until_block=there.block).holds

        audits = [each for each in records if isinstance(each, AuditRecord)]
        executions = [each for each in records if isinstance(each, ExecutionRecord)]
        below = msgspec.structs.replace(executions[0], rate=1)
        other = msgspec.structs.replace(epochs[0].epoch, secret="0x" + "11" * 32)
        controls = {
            "an execution sampled below the floor": not holds(
                [below if each is executions[0] else each for each in records], epochs
            ),
            "an audit that was drawn, left out": not holds([each for each in records if each is not audits[0]], epochs),
            "the secret of an epoch exchanged": not holds(
                records, [msgspec.structs.replace(epochs[0], epoch=other), *epochs[1:]]
            ),
        }
        text = f"{len(audits)} audits drawn as the secrets of {len(drawn_in)} epochs say, none left out"
        facts = {"audits": len(audits), "epochs": len(drawn_in)}
        self._claim("audits", text, {"every draw is as promised": holds(records, epochs)}, controls, **facts)

    async def _is_verified(self, receipt: Receipt) -> bool:
        """By the command that a requester has, which gets the receipt as a file and asks the chain."""
        file = self._network.plan.folder / f"receipt-{receipt.charge_wei}.json"
        file.write_bytes(msgspec.json.encode(receipt))
        where = ["--deployment", str(self._chain.deployment_path), "--rpc", self._chain.url]
        depth = ["--confirmations", str(CONFIRMATIONS)]
        code, _ = await _ran("parallelix.client", "receipt", "verify", str(file), *where, *depth)
        return code == 0

    async def _is_proven(self, receipt: Receipt) -> bool:
        if receipt.batch is None:
            return False
        deployment = self._chain.deployment
        said = await anchored.look_up(self._rpc, deployment, receipt, confirmations=CONFIRMATIONS)
        return said.confirmed and said.verified

    # Money ------------------------------------------------------------------------------------------------------------

    async def _is_settled(self, found: Evidence) -> None:
        charged_wei = sum(int(view.charge_wei) for view in found.views.values())

        async def settled() -> bool:
            vault = (await self._calls.account()).vault
            on_chain = await self._vaults.settled(self._requester) == charged_wei
            return on_chain and vault is not None and int(vault.unsettled_wei) == 0

        await self._until("what was spent is settled on-chain", settled)
        split = await self._events(self._vaults.address, SpendSplit)
        parameters = self._chain.deployment.parameters
        shares_wei = {name: sum(getattr(each, name) for each in split) for name in ("operators", *SHARES_PERCENT)}
        vault = (await self._calls.account()).vault
        holds = {
            "the shares add up to the charges": sum(shares_wei.values()) == charged_wei,
            "the treasury has its share": await self._balance_wei(parameters.treasury) == shares_wei["treasury"],
            "infrastructure has its share": await self._balance_wei(parameters.infrastructure)
            == shares_wei["infrastructure"],
            "the ledger has what the vault has": vault is not None
            and int(vault.deposit_wei) == await self._vaults.deposits(self._requester),
            **{
                f"{name} gets {percent} %": abs(shares_wei[name] - charged_wei * percent // 100) <= len(split)
                for name, percent in SHARES_PERCENT.items()
            },
        }
        stolen = self._vault.settle([Spend(account=self._requester, cumulative_spent=2 * charged_wei)])
        controls = {"a settlement that is not the settler's": await _refused(self._send(STRANGER, stolen), NotSettler)}
        text = f"{_prlx(charged_wei)} settled on-chain, to the wei what the receipts charge"
        facts = {"charged_wei": str(charged_wei), **{f"{name}_wei": str(wei) for name, wei in shares_wei.items()}}
        self._claim("settlement", text, holds, controls, **facts)

    async def _earn(self, seats: tuple[int, ...], removed: int) -> None:
        node_ids = [self._network.seats[number].node_id for number in seats]
        idle_id = self._network.seats[removed].node_id

        async def earning() -> bool:
            return all([(await self._rewarding.node(node_id)).earning for node_id in node_ids])

        await self._until("the rewards contract knows that the nodes are online", earning)
        first, idle_first = await self._earned_wei(node_ids), await self._rewarding.earned(idle_id)
        start = await self._rpc.block_time()

        async def grown() -> bool:
            return await self._rpc.block_time() >= start + 2

        await self._until("two seconds of rewards", grown)
        second, idle_second = await self._earned_wei(node_ids), await self._rewarding.earned(idle_id)
        grows = all(after > before for before, after in zip(first, second, strict=True))
        text = f"{_prlx(sum(second))} earned by {len(node_ids)} nodes, and more each second"
        earned = {str(node_id): str(wei) for node_id, wei in zip(node_ids, second, strict=True)}
        controls = {"rewards of a node that was removed": idle_second == idle_first}
        self._claim("rewards", text, {"earned grows": grows}, controls, earned_wei=earned)

    async def _claims(self, seat: int) -> None:
        self._console.live("claiming")
        node_id, wallet = self._network.seats[seat].node_id, operator_wallet(seat)
        address = self._chain.account(wallet).address
        before_wei = await self._balance_wei(address)
        receipt = await self._send(wallet, self._rewards.claim(node_id))
        (claimed,) = events_of(receipt.logs, RewardsClaimed)
        self.table = table = await self._table(self._rpc, receipt.block_number)
        claimed_wei = {each.node_id: int(each.claimed_wei) for each in table.totals}
        holds = {
            "the owner has it, untaxed": await self._balance_wei(address) == before_wei + claimed.amount,
            "the daily table is what the contract says": table.holds and table.block == receipt.block_number,
            "the daily table has the claim": claimed_wei.get(str(node_id)) == claimed.amount,
        }
        nobody = self._send(STRANGER, self._rewards.claim(NO_NODE))
        controls = {
            "a claim for a node that nobody staked for": await _refused(nobody, NoSuchRewardsNode),
            "a daily table made without one event": await self._is_noticed(receipt.block_number),
        }
        text = f"{_prlx(claimed.amount)} claimed by the operator of node {seat}; the table has it to the wei"
        self._claim("claim", text, holds, controls, node_id=node_id, amount_wei=str(claimed.amount), table=table)

    async def _table(self, rpc: Rpc, block: int) -> RewardsTable:
        return await rewards_table.read_table(rpc, self._chain.deployment, block=block, check=True)

    async def _is_noticed(self, block: int) -> bool:
        """Whether a table tells that its endpoint kept a claim to itself."""
        leaky = Leaky(self._chain.url)
        try:
            return not (await self._table(leaky, block)).holds
        except BadResult:
            return True
        finally:
            await leaky.close()

    # The operator goes ------------------------------------------------------------------------------------------------

    def _start_impostor(self, seat: int) -> Child:
        """The real daemon, with a key of its own and the id of a node that somebody else staked for."""
        real = self._network.seats[seat]
        home = self._network.plan.folder / "impostor"
        impostor = Seat(number=0, node_id=real.node_id, home=home, coordinator_url=real.coordinator_url)
        registration(impostor)
        command = self._network.plan.node_command(impostor)
        environment = {"PARALLELIX_HOME": str(home)}
        return Child("impostor", command, output=home.with_suffix(".out"), environment=environment)

    async def _is_turned_away(self, impostor: Child) -> None:
        await self._until("the impostor ends", _is_over(impostor))
        holds = {"it ended in order": impostor.exit_code == 0}
        controls = {"a node with another key than the registered one": "key_mismatch" in impostor.tail()}
        text = "a node with a key that nobody staked for was turned away: key_mismatch"
        self._claim("impostor", text, holds, controls, said=impostor.tail().splitlines()[-1:])

    async def _leaves(self, seat: int) -> None:
        self._console.live("unstaking")
        node_id, wallet, node = self._network.seats[seat].node_id, operator_wallet(seat), self._network.nodes[seat]
        unstake = self._locker.request_unstake(node_id)
        controls = {"a stake asked back by a stranger": await _refused(self._send(STRANGER, unstake), NotNodeOwner)}
        receipt = await self._send(wallet, unstake)
        early = self._send(wallet, self._locker.withdraw_stake(node_id))
        controls["a stake withdrawn before its cooldown is over"] = await _refused(early, CooldownNotOver)
        await self._until(f"node {seat} stops by itself", _is_over(node))
        status = await self._status(seat)
        holds = {
            "the daemon ended in order": node.exit_code == 0,
            "the daemon says why": "in_cooldown" in node.tail(),
            "its status is COOLING": "COOLING" in status,
        }
        text = f"node {seat} unstaked: its daemon stopped by itself, and its status is COOLING"
        said = node.tail().splitlines()[-1:]
        self._claim("unstake", text, holds, controls, node_id=node_id, block=receipt.block_number, said=said)

    async def _takes_its_stake(self, seat: int) -> None:
        self._console.live("letting seven days pass on the chain")
        node_id, wallet = self._network.seats[seat].node_id, operator_wallet(seat)
        address = self._chain.account(wallet).address
        await self._chain.anvil.pass_time(COOLDOWN_SECONDS)
        before_wei = await self._balance_wei(address)
        await self._send(wallet, self._locker.withdraw_stake(node_id))
        back_wei = await self._balance_wei(address) - before_wei
        again = self._send(wallet, self._locker.withdraw_stake(node_id))
        controls = {"a stake withdrawn a second time": await _refused(again, StakeAlreadyWithdrawn)}

        async def retired() -> bool:
            return "RETIRED" in await self._status(seat)

        await self._until(f"the status of node {seat} is RETIRED", retired)
        holds = {"all of it came back": back_wei == MINIMUM_STAKE_WEI}
        text = f"{_prlx(back_wei)} of stake withdrawn in full, 7 days on; its status is RETIRED"
        self._claim("stake", text, holds, controls, node_id=node_id, stake_wei=str(back_wei))

    async def _status(self, seat: int) -> str:
        """What the operator reads."""
        home = str(self._network.seats[seat].home)
        _, told = await _ran("parallelix.node", "status", PARALLELIX_HOME=home)
        return told

    # The requester goes -----------------------------------------------------------------------------------------------

    async def _takes_the_rest(self, found: Evidence) -> None:
        block = await self._rpc.block_number()

        async def read() -> bool:
            vault = (await self._calls.account()).vault
            return vault is not None and vault.block >= block

        # A clearance ends some minutes after the chain's time as the coordinator knows it, which was put forward.
        await self._until("the coordinator has read the chain", read)
        self._console.live("withdrawing the rest")
        left_wei = await self._vaults.deposits(self._requester)
        charged_wei = sum(int(view.charge_wei) for view in found.views.values())
        before_wei = await self._balance_wei(self._requester)
        too_much = self._calls.clearance(left_wei + 1)
        controls = {"a clearance above what is left": await _called_off(too_much, "insufficient_credits")}
        clearance = await self._calls.clearance(left_wei)
        raised = msgspec.structs.replace(clearance, amount_wei=str(left_wei - 1))
        forged = self._send(REQUESTER_WALLET, self._withdrawal(raised))
        controls["a clearance of another amount"] = await _refused(forged, ClearanceNotFromSettler)
        await self._send(REQUESTER_WALLET, self._withdrawal(clearance))
        back_wei = await self._balance_wei(self._requester) - before_wei
        again = self._send(REQUESTER_WALLET, self._withdrawal(clearance))
        controls["a clearance used a second time"] = await _refused(again, ClearanceNonceNotNext)

        async def empty() -> bool:
            account = await self._calls.account()
            return int(account.available_wei) == 0 and int(account.held_wei) == 0

        await self._until("the ledger has seen the withdrawal", empty)
        holds = {
            "what was paid is what was charged": back_wei == left_wei,
            "the vault owes nobody anything": await self._vaults.total_deposits() == 0,
            "the settler settled no more": await self._vaults.settled(self._requester) == charged_wei,
        }
        text = f"{_prlx(back_wei)} withdrawn by clearance; the vault owes nobody anything"
        self._claim("withdrawal", text, holds, controls, amount_wei=str(back_wei))

    def _withdrawal(self, clearance: ClearanceView) -> Call:
        return self._vault.withdraw_with_clearance(
            int(clearance.amount_wei),
            int(clearance.cumulative_spent_wei),
            clearance.nonce,
            clearance.expiry,
            clearance.v,
            from_hex(clearance.r, name="r", length_bytes=32),
            from_hex(clearance.s, name="s", length_bytes=32),
        )

    # Common -----------------------------------------------------------------------------------------------------------

    def _claim(
        self, name: str, text: str, holds: Mapping[str, bool], controls: Mapping[str, bool], **facts: Any
    ) -> None:
        faults = tuple(what for what, does in holds.items() if not does)
        self.claims.append(Claim(name=name, text=text, facts=facts, faults=faults))
        self.controls += controls.items()
        (self._console.cross if faults else self._console.done)(text)
        for fault in faults:
            self._console.plain(f"    does not hold: {fault}")

    async def _send(self, wallet: str, call: Call) -> Any:
        return await self._chain.send(wallet, call)

    async def _balance_wei(self, address: str) -> int:
        return await self._tokens.balance_of(address)

    async def _earned_wei(self, node_ids: list[int]) -> list[int]:
        return [await self._rewarding.earned(node_id) for node_id in node_ids]

    async def _events(self, contract: str, kind: type[E_]) -> list[E_]:
        logs = await self._rpc.logs(
            addresses=[contract],
            topics=[kind.LAYOUT.topic],
            first_block=self._chain.deployment.first_block,
            last_block=await self._rpc.block_number(),
        )
        return events_of(logs, kind)

    async def _until(self, what: str, holds: Callable[[], Awaitable[bool]]) -> None:
        self._console.live(f"waiting until {what}")
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                while not await holds():
                    self._chain.require_running()
                    await asyncio.sleep(POLL_SECONDS)
        except TimeoutError as error:
            raise CircleBroken(f"waited {WAIT_SECONDS:g} s in vain until {what}") from error


def _is_over(child: Child) -> Callable[[], Awaitable[bool]]:
    async def is_over() -> bool:
        return not child.running

    return is_over


async def _ran(module: str, *arguments: str, **environment: str) -> tuple[int, str]:
    """A command of ours: its exit code, and what it printed."""
    command = [sys.executable, "-m", module, *arguments]
    pipe = asyncio.subprocess.PIPE
    ran = await asyncio.create_subprocess_exec(*command, env={**os.environ, **environment}, stdout=pipe, stderr=pipe)
    told, _ = await ran.communicate()
    return ran.returncode or 0, told.decode(errors="replace")


async def _refused(attempt: Awaitable[object], kind: type[Exception]) -> bool:
    """Whether a contract refused it, for this reason."""
    try:
        await attempt
    except kind:
        return True
    return False


async def _called_off(attempt: Awaitable[object], code: str) -> bool:
    """Whether the coordinator refused it, with this code."""
    try:
        await attempt
    except CallRefused as refusal:
        return refusal.code == code
    return False


def _prlx(wei: int) -> str:
    whole, part = divmod(wei, TOKEN_WEI)
    digits = f"{whole:,}" if not part else f"{whole:,}.{part * 10**6 // TOKEN_WEI:06}"
    return f"{digits} PRLX"


def _short(text: str) -> str:
    return f"{text[:10]}…"
