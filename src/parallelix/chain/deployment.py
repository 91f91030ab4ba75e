"""Deploys the five contracts to any JSON-RPC endpoint, step by step, and goes on where an earlier run ended.

Each step is noted in the deployment file before it is sent and after it is in a block; deployment_file.py says why.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import msgspec
from eth_account.signers.local import LocalAccount
from eth_utils.address import to_checksum_address
from web3.types import Nonce
from web3.utils.address import get_create_address

from parallelix.chain import deployment_file, plan
from parallelix.chain.abi import Address
from parallelix.chain.deployment_file import ContractEntry, Deployment, Parameters, Pending, StepEntry
from parallelix.chain.errors import DeploymentRefused, NotMined, Reverted, WrongChain
from parallelix.chain.plan import Create, Step
from parallelix.chain.ports import Receipt
from parallelix.chain.rpc import Fees, Rpc
from parallelix.chain.wallet import (
    ATTEMPTS_MAX,
    POLL_SECONDS_FIRST,
    POLL_SECONDS_MAX,
    RECEIPT_SECONDS_MAX,
    Signed,
    dearer,
    send_again,
    sign,
    with_margin,
)
from parallelix_contracts import Artifact, artifact

GWEI = 10**9
FEE_GWEI_MAX = 200
"""Many times what gas costs in a usual week. Whoever wants to deploy in a worse one says so."""
NONCES_MAX = 3
"""How often a step begins anew because the deployer's key was used elsewhere meanwhile."""


class Progress(Protocol):
    """Is told how a deployment goes on."""

    def waiting(self, step: str, what: str) -> None: ...

    def done(self, entry: StepEntry, contract: Address) -> None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How to send: what a unit of gas may cost, how long a step may take, how long an endpoint may know a nonce before
    its receipt, and how many blocks confirm the last step."""

    fee_most_wei: int = FEE_GWEI_MAX * GWEI
    receipt_seconds: float = RECEIPT_SECONDS_MAX
    lag_seconds: float = 15.0
    confirmations: int = 1


async def deploy(
    rpc: Rpc, account: LocalAccount, parameters: Parameters, path: Path, progress: Progress, settings: Settings
) -> Deployment:
    """Brings the deployment in `path` to its end, from wherever it stands; a finished one is only verified.

    Raises `DeploymentRefused`, `WrongChain`, `Reverted`, `NotMined` and what `rpc` raises; run again, it goes on.
    """
    wanted = deployment_file.checked(parameters)
    with deployment_file.locked(path):
        now = await _taken_up(rpc, account.address, wanted, path)
        run = _Run(rpc, account, path, progress, settings, now)
        for step in plan.steps_of(now):
            await run.take(step)
        await run.finish()
        return run.now


async def require_chain(rpc: Rpc, deployment: Deployment) -> None:
    """Raises `WrongChain` unless the endpoint serves the deployment's chain."""
    chain_id = await rpc.chain_id()
    if chain_id != deployment.chain_id:
        raise WrongChain(
            f"the endpoint serves chain {chain_id}, the deployment file is of chain {deployment.chain_id};"
            " give the endpoint of that chain, or another file"
        )


async def require_code(rpc: Rpc, deployment: Deployment) -> None:
    """Raises `WrongChain` or `DeploymentRefused` unless each contract stands where the file says, with our code."""
    await require_chain(rpc, deployment)
    for name, entry in deployment.contracts.items():
        code = await rpc.code(entry.address)
        if not code:
            raise DeploymentRefused(
                f"{name}: no contract stands at {entry.address}, though the file says so since block"
                f" {entry.block_number}; the endpoint lags behind, or this is another chain with the same id:"
                " wait, or choose another file"
            )
        if not is_code_of(code, artifact(name)):
            raise DeploymentRefused(
                f"{name}: the code at {entry.address} is not that of this release;"
                " go on with the release that began, or choose another file"
            )


def is_code_of(code: bytes, compiled: Artifact) -> bool:
    """Whether deployed code is this contract's, whatever the immutables behind it hold."""
    immutables = compiled.storage_layout.get("code_layout", {})
    return code.startswith(compiled.runtime_bytecode) and len(code) == len(compiled.runtime_bytecode) + _bytes_in(
        immutables
    )


def _bytes_in(layout: dict[str, object]) -> int:
    """The compiler nests the immutables of modules below the module's name."""
    if isinstance(layout.get("length"), int):
        return int(str(layout["length"]))
    return sum(_bytes_in(each) for each in layout.values() if isinstance(each, dict))  # pyright: ignore[reportUnknownArgumentType]


def created_address(deployer: Address, nonce: int) -> Address:
    """Where the contract will stand that `deployer` creates with transaction `nonce`."""
    return get_create_address(to_checksum_address(deployer), Nonce(nonce))


async def _taken_up(rpc: Rpc, deployer: Address, wanted: Parameters, path: Path) -> Deployment:
    """The deployment that the file holds, or a new one. Sends nothing."""
    found = deployment_file.read(path)
    if found is not None:
        _require_same(found, deployer, wanted, path)
        await require_code(rpc, found)
        return found
    chain_id = await rpc.chain_id()
    if wanted.lockup and not await rpc.code(wanted.lockup):
        raise DeploymentRefused(
            f"lockup {wanted.lockup}: no contract stands there on chain {chain_id};"
            " give the address of Sablier Lockup on this chain"
        )
    return Deployment(chain_id=chain_id, deployer=deployer, parameters=wanted)


def _require_same(found: Deployment, deployer: Address, wanted: Parameters, path: Path) -> None:
    had, asked = msgspec.structs.asdict(found.parameters), msgspec.structs.asdict(wanted)
    differing = [
        f"{name} is {had[name] or 'none'}, not {asked[name] or 'none'}" for name in had if had[name] != asked[name]
    ]
    if found.deployer != deployer:
        differing.insert(0, f"deployer is {found.deployer}, not {deployer}")
    if differing:
        raise DeploymentRefused(
            f"{path} was begun with other parameters: {'; '.join(differing)}; give those, or choose another file"
        )


class _Run:
    """One run over one deployment file; `now` is what the file says."""

    def __init__(
        self, rpc: Rpc, account: LocalAccount, path: Path, progress: Progress, settings: Settings, now: Deployment
    ) -> None:
        self._rpc = rpc
        self._account = account
        self._path = path
        self._progress = progress
        self._settings = settings
        self.now = now

    async def take(self, step: Step) -> None:
        """Does one step, or finds that it is done."""
        if any(entry.name == step.name for entry in self.now.steps):
            return
        for tries_left in reversed(range(NONCES_MAX + 1)):
            receipt = await self._mined(step)
            if receipt is not None:
                self._close(step, receipt)
                return
            if await self._found_done(step):
                return
            if tries_left:
                await self._sign_first(step)
        raise DeploymentRefused(
            f"{step.name}: others send from {self._account.address} too, and took its number {NONCES_MAX} times;"
            " let the deployer's key rest for this long"
        )

    async def finish(self) -> None:
        """Waits for the confirmations of the last step, and checks all once more."""
        last = max(entry.block_number for entry in self.now.steps) + self._settings.confirmations - 1
        patience = _Patience(self._settings.receipt_seconds)
        while await self._rpc.block_number() < last:
            self._progress.waiting("confirmations", f"until block {last}")
            if not await patience.lasts():
                raise NotMined(self.now.steps[-1].transaction_hash, waited_seconds=patience.waited_seconds)
        await require_code(self._rpc, self.now)
        if not self.now.complete:
            self._note(msgspec.structs.replace(self.now, complete=True))

    async def _found_done(self, step: Step) -> bool:
        """Whether the chain shows a step done of which the file knows no transaction."""
        if isinstance(step, Create) or not await step.is_done(self._rpc, self.now):
            return False
        self._close(step, Receipt(transaction_hash="", block_number=await self._rpc.block_number(), gas_used=0))
        return True

    async def _sign_first(self, step: Step) -> None:
        nonce = await self._rpc.nonce(self._account.address, pending=True)
        signed = await self._signed(step, nonce, await self._fees())
        contract = created_address(self._account.address, nonce) if isinstance(step, Create) else ""
        pending = Pending(name=step.name, nonce=nonce, contract=contract, attempts=(signed,))
        self._note(msgspec.structs.replace(self.now, pending=pending))

    async def _signed(self, step: Step, nonce: int, fees: Fees) -> Signed:
        """The step's transaction. What would revert, or cost more than there is, is refused here."""
        to, data = _content(step, self.now)
        sender = self._account.address
        try:
            gas = with_margin(await self._rpc.estimate_gas(to, data, sender=sender))
        except Reverted as error:
            raise error.during(step.name) from error
        balance_wei = await self._rpc.balance_wei(sender)
        if balance_wei < gas * fees.most_wei:
            raise DeploymentRefused(
                f"{step.name}: takes up to {_gwei(gas * fees.most_wei)}, the deployer {sender} has"
                f" {_gwei(balance_wei)}; send it more and run again"
            )
        return sign(
            self._account,
            chain_id=self.now.chain_id,
            nonce=nonce,
            to=to,
            data=data,
            gas=gas,
            fees=fees,
        )

    async def _fees(self) -> Fees:
        fees = await self._rpc.fees()
        most_wei = self._settings.fee_most_wei
        if fees.most_wei > most_wei:
            raise DeploymentRefused(
                f"a unit of gas may cost {_gwei(fees.most_wei)} in the next block, more than {_gwei(most_wei)};"
                " run again when it is quieter, or raise --max-fee-gwei"
            )
        return fees

    async def _mined(self, step: Step) -> Receipt | None:
        """Waits for what the file has as pending; none when there is nothing, or when another transaction of the
        deployer took its number, so that it can never be mined."""
        if self.now.pending is None:
            return None
        patience, lag = _Patience(self._settings.receipt_seconds), _Patience(self._settings.lag_seconds)
        sent = 0
        while True:
            pending = self.now.pending
            assert pending.name == step.name, (pending.name, step.name)
            number_is_taken = await self._rpc.nonce(self._account.address) > pending.nonce
            receipt = await self._receipt(pending)
            if receipt is not None:
                return receipt
            if number_is_taken:
                # An endpoint of several machines may know the number before the receipt.
                if not await lag.lasts():
                    return await self._lost(pending)
                continue
            if sent < len(pending.attempts):
                await send_again(self._rpc, pending.attempts[-1])
                sent = len(pending.attempts)
            elif len(pending.attempts) < ATTEMPTS_MAX:
                await self._raise_fee(step, pending)
            self._progress.waiting(step.name, f"in no block yet, number {pending.nonce} of {self._account.address}")
            if not await patience.lasts():
                raise NotMined(pending.attempts[-1].transaction_hash, waited_seconds=patience.waited_seconds)

    async def _receipt(self, pending: Pending) -> Receipt | None:
        try:
            for attempt in pending.attempts:
                receipt = await self._rpc.receipt(attempt.transaction_hash)
                if receipt is not None:
                    return receipt
        except Reverted as error:
            # It used up its number, so the next run begins this step anew.
            self._note(msgspec.structs.replace(self.now, pending=None))
            raise error.during(pending.name) from error
        return None

    async def _lost(self, pending: Pending) -> Receipt | None:
        """What became of a number that was used by no transaction of which the endpoint knows."""
        if pending.contract and await self._rpc.code(pending.contract):
            block = await self._rpc.block_number()
            return Receipt(transaction_hash="", block_number=block, gas_used=0, contract=pending.contract)
        self._note(msgspec.structs.replace(self.now, pending=None))
        return None

    async def _raise_fee(self, step: Step, pending: Pending) -> None:
        """A dearer attempt at the same number, where the last one's fee no longer pays for a block."""
        last = pending.attempts[-1]
        if int(last.fee_most_wei) >= await self._rpc.base_fee_wei():
            return
        signed = await self._signed(step, pending.nonce, dearer(last, await self._fees()))
        raised = msgspec.structs.replace(pending, attempts=(*pending.attempts, signed))
        self._note(msgspec.structs.replace(self.now, pending=raised))

    def _close(self, step: Step, receipt: Receipt) -> None:
        """Notes a step as done."""
        entry = StepEntry(
            name=step.name,
            transaction_hash=receipt.transaction_hash,
            block_number=receipt.block_number,
            gas_used=receipt.gas_used,
        )
        now = plan.after(self.now, step, receipt)
        if isinstance(step, Create):
            assert receipt.contract is not None, receipt
            made = ContractEntry(
                address=receipt.contract,
                block_number=receipt.block_number,
                transaction_hash=receipt.transaction_hash,
                abi_sha256=artifact(step.name).abi_sha256,
            )
            now = msgspec.structs.replace(now, contracts={**now.contracts, step.name: made})
        self._note(msgspec.structs.replace(now, steps=(*now.steps, entry), pending=None))
        self._progress.done(entry, receipt.contract or "")

    def _note(self, now: Deployment) -> None:
        deployment_file.write(self._path, now)
        self.now = now


class _Patience:
    """Pauses that grow, until their sum reaches a bound."""

    def __init__(self, most_seconds: float) -> None:
        self._most_seconds = most_seconds
        self._pause_seconds = POLL_SECONDS_FIRST
        self.waited_seconds = 0.0

    async def lasts(self) -> bool:
        """Pauses, and says whether to go on."""
        if self.waited_seconds >= self._most_seconds:
            return False
        await asyncio.sleep(self._pause_seconds)
        self.waited_seconds += self._pause_seconds
        self._pause_seconds = min(2 * self._pause_seconds, POLL_SECONDS_MAX)
        return True


def _content(step: Step, now: Deployment) -> tuple[Address | None, bytes]:
    if isinstance(step, Create):
        return None, step.data(now)
    call = step.call(now)
    return call.to, call.data


def _gwei(amount_wei: int) -> str:
    return f"{amount_wei / GWEI:,.3f} gwei"
