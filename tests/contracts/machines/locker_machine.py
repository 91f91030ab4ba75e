"""The locker beside its model: several owners, many nodes, time, stray transfers, and every kind of rewards contract:
none, a hostile one, the real one with its roles at work."""

from __future__ import annotations

import collections
import contextlib
import copy
import functools
from collections.abc import Callable, Generator
from typing import Any

import boa
from chain_storage import stored
from harness import ContractMachine, Mutant, run_machine
from hostile_contracts import RewardsMode, TokenMode, hostile_deployer
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from locker_model import ACTIVE, COOLDOWN_SECONDS, COOLING, WITHDRAWN, LockerModel, ModelNode
from locker_scene import MINIMUM_STAKE_WEI, NOBODY, deploy_locker_of_hostile_token, events, key_hash
from network import EMPTY_ROOT, deploy_rewards, make_roles
from sources import deployer_of

OWNERS = 4
SEEN_ENOUGH = 4
"""How often an example may do what teaches nothing new the next time."""
FUNDS_WEI = 4_000_000 * 10**18
AMPLE_GAS = 5_000_000
SHORT_GAS = 500_000
"""Below what the notice needs, and enough for all else."""

FAULTS = st.sampled_from([None] * 8 + ["tier", "stake", "empty key", "used key", "funds", "allowance"])
CALLERS = st.sampled_from(["owner"] * 6 + ["another owner", "stranger", "deployer"])
MOMENTS = st.sampled_from(["a second early", "on time", "late", "now"])
PICKS, ODD_PICK = st.integers(0, 63), 60
HONESTY = st.sampled_from([True, True, False])
TOKEN_ACTIONS = ("exempt", "new token owner")
REWARDS_ACTIONS = (
    "pause",
    "unpause",
    "report online",
    "report offline",
    "new liveness",
    "new guardian",
    "new rewards owner",
    "earn and claim",
    "claim",
)
ACTIONS = (*TOKEN_ACTIONS, *REWARDS_ACTIONS)


class LockerMachine(ContractMachine):
    """Compares the whole state of the locker with the model's after each step."""

    @initialize(
        rewards_kind=st.sampled_from(["absent", "hostile", "hostile", "real", "real", "real"]),
        bound=st.sampled_from([True, True, True, False]),
        exempt=st.sampled_from([True] * 7 + [False]),
        nodes=st.integers(0, 4),
    )
    def deploy(self, rewards_kind: str, bound: bool, exempt: bool, nodes: int) -> None:
        self.roles = make_roles()
        self.token_owner = self.roles.deployer
        self.stranger = boa.env.generate_address("stranger")
        self.owners = [boa.env.generate_address(f"owner {number}") for number in range(OWNERS)]
        with boa.env.prank(self.roles.deployer):
            self.token = deployer_of("PRLX")(self.roles.treasury)
            self.locker = deployer_of("NodeRegistryLocker")(self.token.address, self.roles.treasury)
            self.foreign_rewards = hostile_deployer("HostileRewards")(self.stranger)
            self.deploy_rewards(rewards_kind)
        self.start_model(exempt=exempt)
        if bound and self.rewards is not None:
            self.bind(self.roles.deployer, self.rewards)
        for number in range(nodes):
            self.register(number, 0, 1 + number % 4, number + 1, None)

    def deploy_rewards(self, kind: str) -> None:
        self.mode = RewardsMode.OBEY
        self.rewards: Any = None
        self.is_real = kind == "real"
        self.paused = False
        self.liveness, self.guardian, self.rewards_owner = self.roles.liveness, self.roles.guardian, self.roles.deployer
        if kind == "hostile":
            self.rewards = hostile_deployer("HostileRewards")(self.locker.address)
        elif kind == "real":
            anchor = deployer_of("ExecutionAnchor")(self.roles.validator)
            self.rewards = deploy_rewards(self.token, self.locker, anchor, self.roles)
            self.token.addExemption(self.rewards.address)

    def start_model(self, *, exempt: bool) -> None:
        deployer = self.roles.deployer
        self.accounts = [*self.owners, self.stranger, deployer, self.roles.treasury, self.locker.address]
        for owner in self.owners:
            self.token.transfer(owner, FUNDS_WEI, sender=deployer)
        for owner in self.owners[1:]:
            self.token.approve(self.locker.address, 2**256 - 1, sender=owner)
        if exempt:
            self.token.addExemption(self.locker.address, sender=deployer)
        self.exempt_accounts = {deployer, self.roles.treasury} | ({self.locker.address} if exempt else set[str]())
        self.requested_at: dict[int, int] = {}
        self.seen = collections.Counter[str]()
        self.model = LockerModel(
            locker=self.locker.address,
            deployer=deployer,
            treasury=self.roles.treasury,
            balances={account: self.token.balanceOf(account) for account in self.accounts},
            approved=set(self.owners[1:]),
            exempt=exempt,
        )

    # What anybody may do

    @precondition(lambda self: self.model.exempt or self.seen["not exempt"] < SEEN_ENOUGH)
    @rule(pick=PICKS, extra_wei=st.integers(0, 10**24), tier=st.integers(1, 4), key=st.integers(1, 12), fault=FAULTS)
    def register(self, pick: int, extra_wei: int, tier: int, key: int, fault: str | None) -> None:
        self.seen["not exempt"] += not self.model.exempt
        # The first owner never approved the locker.
        owner = self.owners[0 if fault == "allowance" else 1 + pick % (OWNERS - 1)]
        affordable_wei = max(MINIMUM_STAKE_WEI, min(MINIMUM_STAKE_WEI + extra_wei, self.model.balances[owner]))
        stake_wei = {"stake": MINIMUM_STAKE_WEI - 1 - extra_wei % 10**9, "funds": 10**26}.get(
            fault or "", affordable_wei
        )
        wanted_tier = (0, 5, 2**255)[pick % 3] if fault == "tier" else tier
        wanted_key = bytes(32) if fault == "empty key" else self.key_for(key, used=fault == "used key")
        refusal = self.model.registration_refusal(owner, stake_wei, wanted_tier, wanted_key)
        node_id = self.attempt(
            "registerNode",
            lambda: self.locker.registerNode(stake_wei, wanted_tier, wanted_key, sender=owner),
            refusal=refusal,
        )
        if refusal is None:
            assert node_id == self.model.register(owner, stake_wei, wanted_tier, wanted_key)

    def key_for(self, number: int, *, used: bool) -> bytes:
        """The first key hash from `number` on that is free, or the one as it is."""
        while not used and self.model.holder_of(key_hash(number)):
            number += 1
        return key_hash(number)

    @precondition(lambda self: self.model.nodes)
    @rule(pick=PICKS, caller=CALLERS, gas=st.sampled_from([AMPLE_GAS] * 6 + [SHORT_GAS]))
    def request_unstake(self, pick: int, caller: str, gas: int) -> None:
        node_id = self.prefer(pick, ACTIVE)
        self.request(node_id, self.caller_for(node_id, caller), gas)

    def request(self, node_id: int, sender: str, gas: int) -> None:
        refusal = self.model.request_refusal(node_id, sender, gas_is_short=gas == SHORT_GAS)
        self.attempt(
            "requestUnstake", lambda: self.locker.requestUnstake(node_id, sender=sender, gas=gas), refusal=refusal
        )
        if refusal is None:
            self.model.request(node_id, boa.env.timestamp)
            self.requested_at[node_id] = boa.env.timestamp
            self.check_notice(node_id)

    def check_notice(self, node_id: int) -> None:
        names = [name for name, _ in events(self.locker, self.locker)]
        told = self.model.rewards is None or self.is_real or self.mode.is_told
        assert names == ["UnstakeRequested"] + ["RewardsNotTold"] * (not told), names
        if self.model.rewards is not None and self.is_real:
            assert self.rewards.weightOf(node_id) == 0

    @precondition(lambda self: self.model.nodes)
    @rule(pick=PICKS, caller=CALLERS, moment=MOMENTS)
    def withdraw_stake(self, pick: int, caller: str, moment: str) -> None:
        node_id = self.prefer(pick, COOLING)
        node = self.model.nodes.get(node_id)
        if node is not None and node.state == COOLING:
            shift = {"now": -(2**40), "a second early": -1, "on time": 0, "late": 1 + pick}[moment]
            self.wait_until(node.withdrawable_at + shift)
        self.withdraw(node_id, self.caller_for(node_id, caller))

    def withdraw(self, node_id: int, sender: str) -> None:
        refusal = self.model.withdrawal_refusal(node_id, sender, boa.env.timestamp)
        self.attempt("withdrawStake", lambda: self.locker.withdrawStake(node_id, sender=sender), refusal=refusal)
        if refusal is None:
            self.model.withdraw(node_id)

    @precondition(lambda self: self.seen["stray transfer"] < SEEN_ENOUGH)
    @rule(too_much=st.sampled_from([False, False, True]), amount_wei=st.integers(1, 10**24))
    def transfer_without_staking(self, too_much: bool, amount_wei: int) -> None:
        self.seen["stray transfer"] += 1
        deployer = self.roles.deployer
        sent_wei = amount_wei + self.model.balances[deployer] * too_much
        refusal = self.model.transfer_refusal(deployer, sent_wei)
        self.attempt(
            "transfer",
            lambda: self.token.transfer(self.locker.address, sent_wei, sender=deployer),
            refusal=refusal,
        )
        if refusal is None:
            self.model.move(deployer, self.locker.address, sent_wei)

    @precondition(lambda self: self.model.surplus_wei or self.seen["no surplus"] < SEEN_ENOUGH)
    @rule(pick=PICKS)
    def recover_surplus(self, pick: int) -> None:
        sender, surplus_wei = self.accounts[pick % len(self.accounts)], self.model.surplus_wei
        refusal = None if surplus_wei else "locker: no surplus"
        self.seen["no surplus"] += not surplus_wei
        sent_wei = self.attempt("recoverSurplus", lambda: self.locker.recoverSurplus(sender=sender), refusal=refusal)
        if refusal is None:
            assert sent_wei == surplus_wei
            self.model.move(self.locker.address, self.roles.treasury, surplus_wei)

    @rule(seconds=st.sampled_from([1, 60, 3_600, 86_400, 604_799, 604_800]))
    def wait(self, seconds: int) -> None:
        boa.env.time_travel(seconds=seconds)

    # What roles may do, and what the rewards contract may

    @precondition(lambda self: self.seen["binding"] < SEEN_ENOUGH)
    @rule(foreign=st.sampled_from([False, False, True]), caller=st.sampled_from(["deployer", "deployer", "stranger"]))
    def bind_rewards(self, foreign: bool, caller: str) -> None:
        sender = self.roles.deployer if caller == "deployer" else self.stranger
        self.bind(sender, self.foreign_rewards if foreign or self.rewards is None else self.rewards)

    def bind(self, sender: str, rewards: Any) -> None:
        self.seen["binding"] += 1
        refusal = self.model.binding_refusal(sender, serves_another=rewards is self.foreign_rewards)
        self.attempt("bindRewards", lambda: self.locker.bindRewards(rewards.address, sender=sender), refusal=refusal)
        if refusal is None:
            self.model.rewards = rewards.address

    @precondition(lambda self: self.rewards is not None and not self.is_real)
    @rule(mode=st.sampled_from(list(RewardsMode)), pick=PICKS)
    def rewards_turn(self, mode: RewardsMode, pick: int) -> None:
        self.mode = mode
        self.rewards.behave(mode, self.prefer(pick, ACTIVE))

    @rule(actions=st.lists(st.tuples(st.sampled_from(ACTIONS), HONESTY, PICKS), min_size=1, max_size=6))
    def roles_act(self, actions: list[tuple[str, bool, int]]) -> None:
        """Nothing that a role does, and nothing that a stranger tries in its place, touches the locker."""
        for action, honest, pick in actions:
            if self.is_real or action in TOKEN_ACTIONS:
                ROLE_RULES[action](self, honest, pick)

    def exempt(self, honest: bool, pick: int) -> None:
        account = (self.locker.address, *self.owners, NOBODY)[pick % (OWNERS + 2)]
        sender = self.token_owner if honest else self.stranger
        self.attempt(
            "token roles",
            lambda: self.token.addExemption(account, sender=sender),
            refusal=self.exemption_refusal(account, honest=honest),
        )
        if honest and account != NOBODY:
            self.exempt_accounts.add(account)
            self.model.exempt = self.locker.address in self.exempt_accounts

    def exemption_refusal(self, account: str, *, honest: bool) -> str | None:
        if not honest:
            return "ownable: caller is not the owner"
        if account == NOBODY:
            return "prlx: zero address"
        return "prlx: already exempt" if account in self.exempt_accounts else None

    def hand_over_token(self, honest: bool, pick: int) -> None:
        successor = boa.env.generate_address("token owner")
        sender = self.token_owner if honest else self.stranger
        self.attempt(
            "token roles",
            lambda: self.token.transfer_ownership(successor, sender=sender),
            refusal=None if honest else "ownable: caller is not the owner",
        )
        if honest:
            self.token.accept_ownership(sender=successor)
            self.token_owner = successor

    def pause(self, honest: bool, pick: int) -> None:
        refusal = (
            "rewards: caller is not the guardian" if not honest else "rewards: already paused" * self.paused or None
        )
        sender = self.guardian if honest else self.stranger
        self.attempt("rewards roles", lambda: self.rewards.pause(sender=sender), refusal=refusal)
        self.paused = self.paused or honest

    def unpause(self, honest: bool, pick: int) -> None:
        refusal = "rewards: not paused" * (not self.paused) or None
        if not honest:
            refusal = "ownable: caller is not the owner"
        sender = self.rewards_owner if honest else self.guardian
        self.attempt("rewards roles", lambda: self.rewards.unpause(sender=sender), refusal=refusal)
        self.paused = self.paused and not honest

    def report(self, honest: bool, pick: int, *, online: bool) -> None:
        sender = self.liveness if honest else self.stranger
        changes = [(node_id, online, pick % 2) for node_id in self.model.nodes]
        refusal = "rewards: liveness is paused" * self.paused or None
        if not honest:
            refusal = "rewards: caller is not the liveness reporter"
        self.attempt(
            "rewards roles",
            lambda: self.rewards.reportLiveness(0, EMPTY_ROOT, changes, sender=sender),
            refusal=refusal,
        )

    def change_role(self, honest: bool, pick: int, *, function: str, attribute: str) -> None:
        successor = boa.env.generate_address(attribute)
        sender = self.rewards_owner if honest else self.stranger
        self.attempt(
            "rewards roles",
            lambda: getattr(self.rewards, function)(successor, sender=sender),
            refusal=None if honest else "ownable: caller is not the owner",
        )
        if honest:
            setattr(self, attribute, successor)

    def hand_over_rewards(self, honest: bool, pick: int) -> None:
        self.change_role(honest, pick, function="transfer_ownership", attribute="rewards_owner")
        if honest:
            self.rewards.accept_ownership(sender=self.rewards_owner)

    def earn_and_claim(self, honest: bool, pick: int) -> None:
        """Income is paid out from the day after it came, while nodes are reported online."""
        if self.paused:
            self.unpause(True, pick)
        self.token.transfer(self.rewards.address, 10**20 + pick, sender=self.roles.deployer)
        self.model.balances[self.roles.deployer] -= 10**20 + pick
        self.rewards.pull()
        boa.env.time_travel(seconds=86_400)
        self.report(honest, 0, online=True)
        boa.env.time_travel(seconds=3_600)
        self.claim(honest, pick)

    def claim(self, honest: bool, pick: int) -> None:
        """Whoever claims, the owner is paid. How much is another machine's affair: here `earned` is believed."""
        node_id = self.prefer(pick, ACTIVE)
        node = self.model.nodes.get(node_id)
        payable_wei = self.rewards.earned(node_id) if node else 0
        refusal = "rewards: no such node" if node is None else "rewards: nothing earned" * (payable_wei == 0) or None
        self.attempt("claim", lambda: self.rewards.claim(node_id, sender=self.stranger), refusal=refusal)
        if node is not None:
            self.model.balances[node.owner] += payable_wei

    # Invariants

    @invariant()
    def contract_and_model_agree(self) -> None:
        model, locker = self.model, self.locker
        assert stored(locker, "rewards") == int(model.rewards or NOBODY, 16)
        assert stored(locker, "totalPrincipal") == model.principal_wei
        assert stored(locker, "_node_count") == len(model.nodes)
        for number, node in model.nodes.items():
            assert self.stored_node(number) == as_words(node), f"node {number}"
            key = int.from_bytes(node.key, "big")
            assert stored(locker, "_active_node_of_key", key=key) == model.holder_of(node.key), f"key of node {number}"
        assert {account: self.balance_wei(account) for account in self.accounts} == model.balances

    @invariant()
    def invariant_i1_recorded_stakes_are_covered(self) -> None:
        nodes = [self.stored_node(number) for number in range(1, stored(self.locker, "_node_count") + 1)]
        recorded_wei = sum(stake_wei for _, stake_wei, _, state, _, _ in nodes if state in (ACTIVE, COOLING))
        assert recorded_wei <= self.token.balanceOf(self.locker.address)

    @invariant()
    def invariant_i3_a_cooldown_is_what_its_owner_started(self) -> None:
        for number, requested_at in self.requested_at.items():
            assert self.stored_node(number)[-1] == requested_at + COOLDOWN_SECONDS, f"node {number}"

    @precondition(lambda self: any(node.state != WITHDRAWN for node in self.model.nodes.values()))
    @rule(for_good=st.sampled_from([False, False, True]))
    def invariant_i2_everybody_gets_the_whole_stake_back(self, for_good: bool) -> None:
        """From any state on: everybody asks, waits out the cooldown, not a second less, and is paid to the wei."""
        with contextlib.nullcontext() if for_good else self.undone():
            self.leave([number for number, node in self.model.nodes.items() if node.state != WITHDRAWN])

    @contextlib.contextmanager
    def undone(self) -> Generator[None]:
        """What happens inside happened neither to the chain nor to the model."""
        before = self.model, self.requested_at
        self.model, self.requested_at = copy.deepcopy(before)
        with boa.env.anchor():
            yield
        self.model, self.requested_at = before

    def leave(self, numbers: list[int]) -> None:
        expected_wei = {owner: self.model.balances[owner] for owner in self.owners}
        for number in numbers:
            node = self.model.nodes[number]
            expected_wei[node.owner] += node.stake_wei
            if node.state == ACTIVE:
                self.request(number, node.owner, AMPLE_GAS)
        last = max(numbers, key=lambda number: self.model.nodes[number].withdrawable_at)
        self.wait_until(self.model.nodes[last].withdrawable_at - 1)
        self.withdraw(last, self.model.nodes[last].owner)
        self.wait_until(self.model.nodes[last].withdrawable_at)
        for number in numbers:
            self.withdraw(number, self.model.nodes[number].owner)
        assert {owner: self.balance_wei(owner) for owner in self.owners} == expected_wei

    # Helpers

    def stored_node(self, number: int) -> tuple[int, ...]:
        word = stored(self.locker, "_registrations", key=number)
        owner, stake_wei = word % 2**160, (word >> 160) % 2**88
        key = stored(self.locker, "_key_hashes", key=number)
        withdrawable_at = stored(self.locker, "_withdrawable_at", key=number)
        return owner, stake_wei, (word >> 248) % 16, word >> 252, key, withdrawable_at

    def balance_wei(self, account: str) -> int:
        return stored(self.token, "erc20", "balanceOf", key=account)

    def prefer(self, pick: int, state: int) -> int:
        """A node in that state if there is one; now and then any node, or one that never was."""
        numbers = [number for number, node in self.model.nodes.items() if node.state == state]
        if pick >= ODD_PICK or not numbers:
            numbers = [0, len(self.model.nodes) + 1, *self.model.nodes]
        return numbers[pick % len(numbers)]

    def caller_for(self, node_id: int, caller: str) -> str:
        node = self.model.nodes.get(node_id)
        owner = node.owner if node else self.owners[0]
        others = {"stranger": self.stranger, "deployer": self.roles.deployer}
        others["another owner"] = self.owners[(self.owners.index(owner) + 1) % OWNERS]
        return others.get(caller, owner)

    def wait_until(self, moment: int) -> None:
        if moment > boa.env.timestamp:
            boa.env.time_travel(seconds=moment - boa.env.timestamp)


def as_words(node: ModelNode) -> tuple[int, ...]:
    key = int.from_bytes(node.key, "big")
    return (int(node.owner, 16), node.stake_wei, node.tier, node.state, key, node.withdrawable_at)


ROLE_RULES = {
    "exempt": LockerMachine.exempt,
    "new token owner": LockerMachine.hand_over_token,
    "pause": LockerMachine.pause,
    "unpause": LockerMachine.unpause,
    "report online": functools.partial(LockerMachine.report, online=True),
    "report offline": functools.partial(LockerMachine.report, online=False),
    "new liveness": functools.partial(LockerMachine.change_role, function="setLiveness", attribute="liveness"),
    "new guardian": functools.partial(LockerMachine.change_role, function="setGuardian", attribute="guardian"),
    "new rewards owner": LockerMachine.hand_over_rewards,
    "earn and claim": LockerMachine.earn_and_claim,
    "claim": LockerMachine.claim,
}


def check_machine() -> None:
    run_machine(LockerMachine, calls=1_500, seed=4, shrink=False)


def check_what_a_taxing_token_delivers() -> None:
    """PRLX delivers all it is asked for to an exempt locker, so this takes a token that does not."""
    with boa.env.anchor():
        scene = deploy_locker_of_hostile_token()
        owner = boa.env.generate_address("owner")
        scene.fund(owner, 2 * MINIMUM_STAKE_WEI)
        scene.token.behave(TokenMode.TAX_IN)
        scene.locker.registerNode(2 * MINIMUM_STAKE_WEI, 1, key_hash(1), sender=owner)
        assert scene.locker.nodes(1).stake <= scene.token.balanceOf(scene.locker.address)


def check_what_reentry_does() -> None:
    """A token that calls back while the locker receives: nothing may count twice what arrives once."""
    with boa.env.anchor():
        scene = deploy_locker_of_hostile_token()
        owner = scene.token.address
        scene.fund(owner, 4 * MINIMUM_STAKE_WEI)
        again = scene.locker.registerNode.prepare_calldata(MINIMUM_STAKE_WEI, 1, key_hash(2))
        scene.token.callBack(scene.locker.address, again)
        scene.locker.registerNode(MINIMUM_STAKE_WEI, 1, key_hash(1), sender=owner)
        assert scene.locker.totalPrincipal() <= scene.token.balanceOf(scene.locker.address)


def planted(invariant: str, name: str, before: str, after: str, check: Callable[[], object] = check_machine) -> Mutant:
    return Mutant(
        invariant=invariant, name=name, contract="NodeRegistryLocker", before=before, after=after, check=check
    )


MUTANTS = (
    planted(
        "I1",
        "books-what-was-asked-for",
        "self._register(self._receive(stakeAmount), hardwareTier",
        "self._register(self._receive(stakeAmount) * 0 + stakeAmount, hardwareTier",
        check_what_a_taxing_token_delivers,
    ),
    planted("I1", "no-lock", "\ndef registerNode", "\n@reentrant\ndef registerNode", check_what_reentry_does),
    planted("I1", "principal-is-surplus", "balanceOf(self) - self.totalPrincipal\n", "balanceOf(self)\n"),
    planted("I1", "pays-twice", "withdrawn.state = STATE_WITHDRAWN", "pass"),
    planted("I2", "keeps-a-wei", ".transfer(owner, stake_wei)", ".transfer(owner, stake_wei - 1)"),
    planted("I2", "rewards-can-refuse", "    if not told:", "    assert told\n    if not told:"),
    planted("I3", "a-second-short", "timestamp >= self._withdrawable", "timestamp + 1 >= self._withdrawable"),
    planted("I3", "starts-again", "registration.state == STATE_ACTIVE, ", "registration.state != STATE_WITHDRAWN, "),
    planted(
        "I3",
        "anybody-starts-it-again",
        "self._registration_of_caller(nodeId)\n    assert registration.state == STATE_ACTIVE, ",
        'self._load(nodeId)\n    assert registration.owner != empty(address), "locker: no such node"\n'
        "    assert registration.state in [STATE_ACTIVE, STATE_COOLING], ",
    ),
)
