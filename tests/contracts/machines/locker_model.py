"""What the locker must do, in plain Python: the reference that its machine compares it with."""

from __future__ import annotations

import dataclasses

MINIMUM_STAKE_WEI = 50_000 * 10**18
COOLDOWN_SECONDS = 7 * 24 * 3600
ACTIVE, COOLING, WITHDRAWN = 1, 2, 3


@dataclasses.dataclass(kw_only=True, slots=True)
class ModelNode:
    owner: str
    stake_wei: int
    tier: int
    key: bytes
    state: int = ACTIVE
    withdrawable_at: int = 0


@dataclasses.dataclass(kw_only=True, slots=True)
class LockerModel:
    """The locker, and as much of the token as it needs. Each `*_refusal` says with what a call must revert, or None."""

    locker: str
    deployer: str
    treasury: str
    balances: dict[str, int]
    approved: set[str]
    exempt: bool
    rewards: str | None = None
    nodes: dict[int, ModelNode] = dataclasses.field(default_factory=dict[int, ModelNode])

    @property
    def principal_wei(self) -> int:
        return sum(node.stake_wei for node in self.nodes.values() if node.state != WITHDRAWN)

    @property
    def surplus_wei(self) -> int:
        return self.balances[self.locker] - self.principal_wei

    def holder_of(self, key: bytes) -> int:
        """The active node with this key hash; 0 when there is none."""
        return next((number for number, node in self.nodes.items() if node.key == key and node.state == ACTIVE), 0)

    def registration_refusal(self, owner: str, stake_wei: int, tier: int, key: bytes) -> str | None:
        if not 1 <= tier <= 4:
            return "locker: tier is not 1 to 4"
        if key == bytes(32):
            return "locker: node key hash is empty"
        if self.holder_of(key):
            return "locker: node key is in use"
        if stake_wei < MINIMUM_STAKE_WEI:
            return "locker: below minimum stake"
        if not self.exempt:
            return "locker: not exempt from the transfer tax"
        if owner not in self.approved:
            return "erc20: insufficient allowance"
        return self.transfer_refusal(owner, stake_wei)

    def register(self, owner: str, stake_wei: int, tier: int, key: bytes) -> int:
        self.move(owner, self.locker, stake_wei)
        node_id = len(self.nodes) + 1
        self.nodes[node_id] = ModelNode(owner=owner, stake_wei=stake_wei, tier=tier, key=key)
        return node_id

    def ownership_refusal(self, node_id: int, caller: str) -> str | None:
        if node_id not in self.nodes:
            return "locker: no such node"
        if self.nodes[node_id].owner != caller:
            return "locker: caller is not the owner of the node"
        return None

    def request_refusal(self, node_id: int, caller: str, *, gas_is_short: bool) -> str | None:
        refusal = self.ownership_refusal(node_id, caller)
        if refusal is None and self.nodes[node_id].state != ACTIVE:
            return "locker: node is already retired"
        if refusal is None and self.rewards is not None and gas_is_short:
            return "locker: too little gas to tell the rewards"
        return refusal

    def request(self, node_id: int, now: int) -> None:
        self.nodes[node_id].state = COOLING
        self.nodes[node_id].withdrawable_at = now + COOLDOWN_SECONDS

    def withdrawal_refusal(self, node_id: int, caller: str, now: int) -> str | None:
        if refusal := self.ownership_refusal(node_id, caller):
            return refusal
        node = self.nodes[node_id]
        if node.state == ACTIVE:
            return "locker: node is not cooling down"
        if node.state == WITHDRAWN:
            return "locker: stake was withdrawn"
        return "locker: cooldown is not over" if now < node.withdrawable_at else None

    def withdraw(self, node_id: int) -> None:
        node = self.nodes[node_id]
        node.state = WITHDRAWN
        self.move(self.locker, node.owner, node.stake_wei)

    def binding_refusal(self, caller: str, *, serves_another: bool) -> str | None:
        if caller != self.deployer:
            return "locker: caller is not the deployer"
        if self.rewards is not None:
            return "locker: rewards already bound"
        return "locker: rewards serve another locker" if serves_another else None

    def transfer_refusal(self, sender: str, amount_wei: int) -> str | None:
        return "erc20: transfer amount exceeds balance" if amount_wei > self.balances[sender] else None

    def move(self, sender: str, receiver: str, amount_wei: int) -> None:
        self.balances[sender] -= amount_wei
        self.balances[receiver] += amount_wei
