"""A locker with its token, and what its tests do with it: fund, stake, look at everything before and after."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator
from typing import Any

import boa
import pytest
from harness import revert_reason
from hostile_contracts import RewardsMode, hostile_deployer
from logs import fields_of
from sources import deployer_of

MINIMUM_STAKE_WEI = 50_000 * 10**18
COOLDOWN_SECONDS = 604_800
ACTIVE, COOLING, WITHDRAWN = 1, 2, 3
NOBODY = "0x" + "00" * 20


def key_hash(number: int) -> bytes:
    """A node key hash, different for each number."""
    return b"key hash" + number.to_bytes(24, "big")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LockerScene:
    token: Any
    locker: Any
    deployer: str
    treasury: str

    def fund(self, account: str, amount_wei: int) -> None:
        """Gives the account PRLX untaxed and has it approve the locker for whatever it holds."""
        self.token.transfer(account, amount_wei, sender=self.deployer)
        self.token.approve(self.locker.address, 2**256 - 1, sender=account)

    def stake(self, owner: str, *, stake_wei: int = MINIMUM_STAKE_WEI, tier: int = 1, key: int | None = None) -> int:
        """Registers a funded node of `owner`, by default with a key hash of its own, and returns its id."""
        self.fund(owner, stake_wei)
        key_number = self.locker.nodeCount() + 1_000 if key is None else key
        return int(self.locker.registerNode(stake_wei, tier, key_hash(key_number), sender=owner))

    def retire(self, node_id: int) -> None:
        self.locker.requestUnstake(node_id, sender=self.locker.ownerOf(node_id))

    def bind_hostile_rewards(self, mode: RewardsMode) -> Any:
        rewards = hostile_deployer("HostileRewards")(self.locker.address)
        self.locker.bindRewards(rewards.address, sender=self.deployer)
        rewards.behave(mode, 0)
        return rewards

    def everything(self) -> dict[str, Any]:
        """All that a call to the locker could have changed."""
        ids = range(self.locker.nodeCount() + 2)
        nodes = {node_id: self.locker.nodes(node_id) for node_id in ids}
        holders = {self.locker.address, self.treasury, self.deployer, *(node.owner for node in nodes.values())}
        return {
            "totals": (self.locker.nodeCount(), self.locker.totalPrincipal(), self.locker.rewards()),
            "nodes": nodes,
            "keys": {node.nodeKeyHash: self.locker.nodeOfKey(node.nodeKeyHash) for node in nodes.values()},
            "balances": {holder: self.token.balanceOf(holder) for holder in sorted(holders)},
        }

    @contextlib.contextmanager
    def refused(self, reason: str) -> Generator[None]:
        """The call inside must revert with exactly this reason and change nothing."""
        before = self.everything()
        with pytest.raises(boa.BoaError) as caught:
            yield
        assert revert_reason(caught.value) == reason
        assert self.everything() == before


def deploy_locker(*, exempt: bool = True) -> LockerScene:
    """PRLX and a locker that is exempt from its tax, unless told otherwise; no rewards contract is bound."""
    deployer, treasury = boa.env.generate_address("deployer"), boa.env.generate_address("treasury")
    with boa.env.prank(deployer):
        token = deployer_of("PRLX")(treasury)
        locker = deployer_of("NodeRegistryLocker")(token.address, treasury)
        if exempt:
            token.addExemption(locker.address)
    return LockerScene(token=token, locker=locker, deployer=deployer, treasury=treasury)


def deploy_locker_of_hostile_token() -> LockerScene:
    """The same with `HostileToken`, whose `behave` and `callBack` say what it does."""
    deployer, treasury = boa.env.generate_address("deployer"), boa.env.generate_address("treasury")
    with boa.env.prank(deployer):
        token = hostile_deployer("HostileToken")()
        locker = deployer_of("NodeRegistryLocker")(token.address, treasury)
    return LockerScene(token=token, locker=locker, deployer=deployer, treasury=treasury)


def events(contract: Any, emitter: Any) -> list[tuple[str, dict[str, Any]]]:
    """What `emitter` logged during the latest call to `contract`: names and fields, in order."""
    logged = [event for event in contract.get_logs() if event.address == emitter.address]
    return [(type(event).__name__, fields_of(event)) for event in logged]
