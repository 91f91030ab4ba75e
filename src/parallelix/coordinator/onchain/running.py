"""What a coordinator on a chain has beside one that is not: endpoints, keys, and five tasks.

follower     what the contracts say ──► engine
anchoring    closed batches         ──► ExecutionAnchor
sampling     epochs of sampling     ──► ExecutionAnchor
settling     spending               ──► CreditVault
reporting    who is online          ──► OperatorStakeRewardsV2
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from eth_account.signers.local import LocalAccount

from parallelix.chain import deployment_file
from parallelix.chain.bindings.credit_vault import CreditVaultViews
from parallelix.chain.bindings.execution_anchor import ExecutionAnchorViews
from parallelix.chain.bindings.operator_stake_rewards import OperatorStakeRewardsV2Views
from parallelix.chain.deployment import require_chain, require_code
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import (
    BadArgument,
    ChainUnreachable,
    DeploymentRefused,
    KeyRefused,
    RpcRefused,
    WrongChain,
)
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.wallet import key_from
from parallelix.chain.watcher import Position, Watcher
from parallelix.coordinator.logging import LogEvent
from parallelix.coordinator.onchain.anchoring import Anchoring
from parallelix.coordinator.onchain.clearing import Clearing
from parallelix.coordinator.onchain.follower import Follower
from parallelix.coordinator.onchain.intents import Role
from parallelix.coordinator.onchain.outbox import GWEI, Outbox, Pace
from parallelix.coordinator.onchain.reporting import Reporting
from parallelix.coordinator.onchain.sampling import Sampling
from parallelix.coordinator.onchain.settling import Settling
from parallelix.coordinator.ports import ChainNotUsable
from parallelix.coordinator.service import Coordinator
from parallelix.coordinator.settings import RPC_VARIABLE, CoordinatorSettings
from parallelix.coordinator.store.journal import Journal
from parallelix.coordinator.store.readers import Readers
from parallelix.coordinator.store.rows import IntentRow
from parallelix.engine.settings import EngineSettings

ANCHOR, VAULT, REWARDS = "ExecutionAnchor", "CreditVault", "OperatorStakeRewardsV2"
ROLES: tuple[Role, ...] = ("validator", "liveness", "settler")
LAG_LOOK_SECONDS = 0.5
LAG_LOOKS_MAX = 30
"""A block of Ethereum and a little; a machine that is further behind should not be asked."""
FIRST_BATCH = 1
"""The anchor begins with an empty batch 0."""


class JournalledIntents:
    """Intents in the coordinator's own store, beside all else that must be durable."""

    def __init__(self, journal: Journal, readers: Readers) -> None:
        self._journal = journal
        self._readers = readers

    async def save(self, row: IntentRow) -> None:
        await self._journal.wait(self._journal.append([row]))

    async def find(self, intent_id: str) -> IntentRow | None:
        return await self._readers.intent(intent_id)

    async def left_open(self) -> Sequence[IntentRow]:
        return await self._readers.open_intents()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainSide:
    """One deployment, the way to it, and the keys of the three roles."""

    settings: CoordinatorSettings
    deployment: Deployment
    rpc: Rpc
    check_rpc: Rpc | None
    accounts: Mapping[Role, LocalAccount]

    @property
    def engine_settings(self) -> EngineSettings:
        return replace(
            self.settings.engine(),
            chain_id=self.deployment.chain_id,
            on_chain=True,
            first_batch=FIRST_BATCH,
            default_daily_limit_wei=int(self.deployment.parameters.default_daily_limit),
        )

    def join(self, coordinator: Coordinator) -> list[Callable[[], Awaitable[None]]]:
        """Ties the coordinator to the contracts, and gives the tasks to run beside it."""
        outbox = self._outbox(coordinator)
        anchor = self.deployment.address(ANCHOR)
        anchoring = Anchoring(coordinator, outbox, self.rpc, address=anchor)
        clearing = Clearing(
            self.accounts["settler"], vault=self.deployment.address(VAULT), chain_id=self.deployment.chain_id
        )
        coordinator.anchor_batch, coordinator.anchor_address = anchoring.put, anchor
        coordinator.sign_clearance = clearing.sign
        coordinator.contracts = {name: entry.address for name, entry in self.deployment.contracts.items()}
        coordinator.vault_address = self.deployment.address(VAULT)
        coordinator.rpc, coordinator.check_rpc = self.rpc, self.check_rpc
        return [
            lambda: self._follow(coordinator),
            anchoring.run,
            Sampling(coordinator, outbox, self.rpc, address=anchor).run,
            Settling(
                coordinator,
                outbox,
                address=self.deployment.address(VAULT),
                withdrawal_delay_seconds=self.deployment.parameters.withdrawal_delay_seconds,
            ).run,
            Reporting(
                coordinator,
                outbox,
                address=self.deployment.address(REWARDS),
                stale_seconds=self.deployment.parameters.stale_seconds,
            ).run,
        ]

    def _outbox(self, coordinator: Coordinator) -> Outbox:
        def confirmed_block() -> int:
            cursor = coordinator.engine.mirror.cursor
            return -1 if cursor is None else cursor.block

        return Outbox(
            rpc=self.rpc,
            chain_id=self.deployment.chain_id,
            accounts=self.accounts,
            noted=JournalledIntents(coordinator.journal, coordinator.readers),
            confirmed_block=confirmed_block,
            log=coordinator.log,
            clock=coordinator.clock,
            pace=Pace(
                look_seconds=self.settings.chain_poll_seconds,
                fee_bump_seconds=self.settings.fee_bump_seconds,
                fee_most_wei=round(self.settings.fee_gwei_max * GWEI),
            ),
        )

    async def _follow(self, coordinator: Coordinator) -> None:
        cursor = coordinator.engine.mirror.cursor
        watcher = Watcher(
            self.rpc,
            self.deployment,
            confirmations=self.settings.confirmations,
            cursor=None if cursor is None else Position(block=cursor.block, hash=cursor.hash),
            check_rpc=self.check_rpc,
        )
        follower = Follower(
            coordinator,
            watcher,
            poll_seconds=self.settings.chain_poll_seconds,
            reconcile_seconds=self.settings.reconcile_seconds,
        )
        await follower.run()


@asynccontextmanager
async def opened(settings: CoordinatorSettings, *, log: LogEvent) -> AsyncGenerator[ChainSide]:
    """Reads the deployment and the keys, and looks whether the endpoint serves them. One that does not answer is no
    obstacle: what needs the chain waits for it. Raises `ChainNotUsable`."""
    try:
        deployment = _deployment(settings.deployment_file)
        accounts: dict[Role, LocalAccount] = {role: key_from(settings.key_path(role), {}) for role in ROLES}
        if not settings.rpc_url:
            raise ChainNotUsable(
                f"no endpoint of chain {deployment.chain_id}: give --rpc URL, set {RPC_VARIABLE}, or rpc_url in"
                " coordinator.toml"
            )
        async with contextlib.AsyncExitStack() as stack:
            rpc = await stack.enter_async_context(_endpoint(settings.rpc_url))
            check_url = settings.rpc_check_url
            check_rpc = await stack.enter_async_context(_endpoint(check_url)) if check_url else None
            await _look(rpc, deployment, accounts, log)
            yield ChainSide(
                settings=settings,
                deployment=deployment,
                rpc=rpc,
                check_rpc=check_rpc,
                accounts=accounts,
            )
    except (BadArgument, DeploymentRefused, KeyRefused, WrongChain) as error:
        raise ChainNotUsable(error.message) from error


def _endpoint(url: str) -> contextlib.AbstractAsyncContextManager[Rpc]:
    # Whoever asks has a pace of its own for asking again.
    return connected(url, tries=1)


def _deployment(name: str) -> Deployment:
    found = deployment_file.read(Path(name))
    if found is None:
        raise DeploymentRefused(f"{name}: there is no such file; `parallelix chain deploy` writes it")
    if not found.complete:
        raise DeploymentRefused(f"{name}: the deployment is not finished; run the same `parallelix chain deploy` again")
    return found


async def _contracts_known(rpc: Rpc, deployment: Deployment) -> None:
    """Gives an endpoint of several machines, of which some lag behind, time to know the contracts."""
    looks = 0
    while not all([await rpc.code(entry.address) for entry in deployment.contracts.values()]) and looks < LAG_LOOKS_MAX:
        looks += 1
        await asyncio.sleep(LAG_LOOK_SECONDS)


async def _look(rpc: Rpc, deployment: Deployment, accounts: Mapping[Role, LocalAccount], log: LogEvent) -> None:
    """Whether contracts and keys belong together, where the endpoint can tell now."""
    try:
        await require_chain(rpc, deployment)
        await _contracts_known(rpc, deployment)
        await require_code(rpc, deployment)
        wanted: dict[Role, str] = {
            "validator": await ExecutionAnchorViews(rpc, deployment.address(ANCHOR)).validator(),
            "liveness": await OperatorStakeRewardsV2Views(rpc, deployment.address(REWARDS)).liveness(),
            "settler": await CreditVaultViews(rpc, deployment.address(VAULT)).settler(),
        }
    except (ChainUnreachable, RpcRefused) as error:
        log("chain.failed", {"code": error.code, "error": error.message})
        return
    for role, address in wanted.items():
        if accounts[role].address != address:
            raise KeyRefused(
                f"{role}: the key is of {accounts[role].address}, the contract wants {address}; put that account's key"
                f" there, or let the contracts' owner name this one (set{role.capitalize()})"
            )
