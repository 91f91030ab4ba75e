"""The token beside its model: people pay, allow, sign, exempt and hand ownership on, and the chain forks under them."""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any, TypeVar

import boa
from eth_abi.abi import encode
from eth_account.signers.local import LocalAccount
from eth_utils.crypto import keccak
from harness import ContractMachine, Mutant, run_machine
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from logs import events_of
from permits import Permit, signer
from prlx_model import SUPPLY, UNLIMITED, ZERO_ADDRESS, PrlxModel, SignedPermit
from sources import deployer_of

T = TypeVar("T")

SIGNERS: dict[str, LocalAccount] = {account.address: account for account in map(signer, range(1, 7))}
ACCOUNTS = tuple(SIGNERS)
DEPLOYER, TREASURY, *PEOPLE = ACCOUNTS
CHAIN_IDS = (1, 31_337)
DOMAIN_TYPE = keccak(text="EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")

accounts = st.sampled_from(ACCOUNTS)
people = st.sampled_from((*PEOPLE, *ACCOUNTS))
receivers = st.sampled_from((*PEOPLE, *PEOPLE, *ACCOUNTS, ZERO_ADDRESS))
percents = st.integers(0, 108)
"""Of what somebody has or may spend: a few ask for more."""
few_wei = st.integers(0, 60)
"""Around the amounts that are taxed by 0, 1 and 2 wei."""
amounts = few_wei | st.integers(0, SUPPLY) | st.just(UNLIMITED)
mostly_none = functools.partial(st.one_of, st.just(""), st.just(""), st.just(""))
permit_flaws = st.just("") | st.sampled_from(
    ("expired", "signed by another", "replayed", "ahead of its turn", "high s", "of another chain")
)
CALLS_BETWEEN_LOOKS = 4
"""All of the token's answers after every call would take three times as long; what is wrong then stays wrong."""


class PrlxMachine(ContractMachine):
    @initialize(shares=st.lists(st.integers(0, SUPPLY // 10), min_size=len(PEOPLE), max_size=len(PEOPLE)))
    def deploy(self, shares: list[int]) -> None:
        boa.env.evm.patch.chain_id = CHAIN_IDS[0]
        with boa.env.prank(DEPLOYER):
            self.token: Any = deployer_of("PRLX").deploy(TREASURY)
        self.calls = 0
        self.model = PrlxModel(deployer=DEPLOYER, tax_recipient=TREASURY, chain_id=CHAIN_IDS[0])
        self.seen_exempt, self.seen_nonces = {DEPLOYER, TREASURY}, dict.fromkeys(ACCOUNTS, 0)
        self.balances_before = self.balances = self.read_balances()
        for account, share in zip(PEOPLE, shares, strict=True):
            self.pay(DEPLOYER, account, share)

    @rule(sender=people, receiver=receivers, percent=percents, wei=few_wei)
    def transfer(self, sender: str, receiver: str, percent: int, wei: int) -> None:
        self.pay(sender, receiver, self.model.balances[sender] * percent // 100 + wei)

    @rule(sender=people, receiver=receivers, wei=few_wei)
    def transfer_a_few_wei(self, sender: str, receiver: str, wei: int) -> None:
        self.pay(sender, receiver, wei)

    def pay(self, sender: str, receiver: str, amount: int) -> None:
        refusal = self.model.transfer(sender, receiver, amount)
        call = functools.partial(self.token.transfer, receiver, amount, sender=sender)
        self.attempt_payment("transfer", call, sender, receiver, amount, refusal)

    @rule(sender=accounts, spender=accounts, receiver=receivers, wei=few_wei)
    def transfer_from_anybody(self, sender: str, spender: str, receiver: str, wei: int) -> None:
        self.collect(spender, sender, receiver, wei)

    @precondition(lambda self: self.collectable())
    @rule(data=st.data(), receiver=receivers, percent=percents)
    def transfer_from(self, data: st.DataObject, receiver: str, percent: int) -> None:
        sender, spender = data.draw(st.sampled_from(self.collectable()))
        most = min(self.model.allowances[sender, spender], self.model.balances[sender])
        self.collect(spender, sender, receiver, most * percent // 100)

    def collectable(self) -> list[tuple[str, str]]:
        """Who allowed whom something that is there."""
        pairs = sorted(pair for pair, allowance in self.model.allowances.items() if allowance)
        return [(sender, spender) for sender, spender in pairs if self.model.balances[sender]]

    def collect(self, spender: str, sender: str, receiver: str, amount: int) -> None:
        refusal = self.model.transfer_from(spender, sender, receiver, amount)
        call = functools.partial(self.token.transferFrom, sender, receiver, amount, sender=spender)
        self.attempt_payment("transferFrom", call, sender, receiver, amount, refusal)

    @rule(owner=people, spender=receivers, amount=amounts)
    def approve(self, owner: str, spender: str, amount: int) -> None:
        refusal = self.model.approve(owner, spender, amount)
        self.attempt("approve", lambda: self.token.approve(spender, amount, sender=owner), refusal=refusal)

    @rule(owner=accounts, spender=receivers, bearer=accounts, amount=amounts, flaw=permit_flaws)
    def permit(self, owner: str, spender: str, bearer: str, amount: int, flaw: str) -> None:
        signs = ACCOUNTS[ACCOUNTS.index(owner) - 1] if flaw == "signed by another" else owner
        permit = Permit(
            token=self.token.address,
            chain_id=self.other_chain_id if flaw == "of another chain" else self.model.chain_id,
            owner=owner,
            spender=spender,
            amount=amount,
            nonce=max(0, self.model.nonces[owner] + {"replayed": -1, "ahead of its turn": 1}.get(flaw, 0)),
            deadline=boa.env.timestamp - (flaw == "expired"),
        )
        signature = permit.signed_by(SIGNERS[signs])
        signature = signature.malleated() if flaw == "high s" else signature
        refusal = self.model.permit(
            SignedPermit(
                owner=owner,
                spender=spender,
                amount=amount,
                is_expired=flaw == "expired",
                signer=signs,
                signed_nonce=permit.nonce,
                signed_chain_id=permit.chain_id,
                has_high_s=flaw == "high s",
            )
        )
        arguments = owner, spender, amount, permit.deadline, *signature
        self.attempt("permit", lambda: self.token.permit(*arguments, sender=bearer), refusal=refusal)

    @rule(account=receivers, stranger=mostly_none(accounts))
    def add_exemption(self, account: str, stranger: str) -> None:
        caller = stranger or self.model.owner
        refusal = self.model.add_exemption(caller, account)
        self.attempt("addExemption", lambda: self.token.addExemption(account, sender=caller), refusal=refusal)

    @rule(new_owner=receivers, stranger=mostly_none(accounts))
    def transfer_ownership(self, new_owner: str, stranger: str) -> None:
        caller = stranger or self.model.owner
        refusal = self.model.transfer_ownership(caller, new_owner)
        call = functools.partial(self.token.transfer_ownership, new_owner, sender=caller)
        self.attempt("transfer_ownership", call, refusal=refusal)

    @rule(stranger=mostly_none(accounts))
    def accept_ownership(self, stranger: str) -> None:
        offered_to = self.model.pending_owner
        caller = stranger or (DEPLOYER if offered_to == ZERO_ADDRESS else offered_to)
        refusal = self.model.accept_ownership(caller)
        self.attempt("accept_ownership", lambda: self.token.accept_ownership(sender=caller), refusal=refusal)

    @rule(seconds=st.integers(1, 10_000))
    def time_passes(self, seconds: int) -> None:
        boa.env.time_travel(seconds=seconds)

    @rule()
    def the_chain_forks(self) -> None:
        self.model.chain_id = boa.env.evm.patch.chain_id = self.other_chain_id

    @property
    def other_chain_id(self) -> int:
        return next(each for each in CHAIN_IDS if each != self.model.chain_id)

    def read_balances(self) -> dict[str, int]:
        return {account: self.token.balanceOf(account) for account in ACCOUNTS}

    def attempt(self, rule: str, call: Callable[[], T], *, refusal: str | None) -> T | None:
        self.calls += 1
        answer = super().attempt(rule, call, refusal=refusal)
        self.balances_before, self.balances = self.balances, self.read_balances()
        return answer

    def attempt_payment(
        self, rule: str, call: Callable[[], bool], sender: str, receiver: str, amount: int, refusal: str | None
    ) -> None:
        """I12 from the token's own answers alone: of one transfer each wei once, the tax once or not at all."""
        is_free = self.token.isExempt(sender) or self.token.isExempt(receiver)
        tax = 0 if is_free else amount * 400 // 10_000
        parts = [(TREASURY, tax)] * (tax > 0) + [(receiver, amount - tax)]
        answer = self.attempt(rule, lambda: (call(), self.transfers()), refusal=refusal)
        expected = collections.Counter(self.balances_before)
        if refusal is None:
            assert answer == (True, [{"sender": sender, "receiver": to, "value": value} for to, value in parts])
            expected.update({sender: -amount})
            for to, value in parts:
                expected.update({to: value})
        assert self.balances == {account: expected[account] for account in ACCOUNTS}

    def transfers(self) -> list[dict[str, Any]]:
        return [fields for name, fields in events_of(self.token) if name == "Transfer"]

    @invariant()
    def invariant_i12_balances_sum_to_the_supply(self) -> None:
        assert self.balances == {account: self.model.balances[account] for account in ACCOUNTS}
        assert sum(self.balances.values()) == self.token.totalSupply() == SUPPLY

    @precondition(lambda self: self.calls % CALLS_BETWEEN_LOOKS == 0)
    @invariant()
    def invariant_i12_exemptions_and_nonces_only_grow(self) -> None:
        exempt = {account for account in ACCOUNTS if self.token.isExempt(account)}
        nonces = {account: self.token.nonces(account) for account in ACCOUNTS}
        assert exempt >= self.seen_exempt
        assert all(nonces[account] >= self.seen_nonces[account] for account in ACCOUNTS)
        assert (exempt, nonces) == (self.model.exempt, {account: self.model.nonces[account] for account in ACCOUNTS})
        self.seen_exempt, self.seen_nonces = exempt, nonces

    @precondition(lambda self: self.calls % CALLS_BETWEEN_LOOKS == 0)
    @invariant()
    def allowances_and_owner_are_the_model_s(self) -> None:
        assert (self.token.owner(), self.token.pending_owner()) == (self.model.owner, self.model.pending_owner)
        for pair, amount in self.model.allowances.items():
            assert self.token.allowance(*pair) == amount, pair

    @invariant()
    def invariant_i12_the_domain_follows_the_chain(self) -> None:
        names = keccak(text="ParalleliX"), keccak(text="1")
        values = (DOMAIN_TYPE, *names, self.model.chain_id, self.token.address)
        domain = keccak(encode(["bytes32", "bytes32", "bytes32", "uint256", "address"], values))
        assert self.token.DOMAIN_SEPARATOR() == domain


_planted = functools.partial(
    Mutant,
    invariant="I12",
    contract="PRLX",
    check=functools.partial(run_machine, PrlxMachine, calls=1_500, seed=1, shrink=False),
)

MUTANTS = (
    _planted(
        name="tax-rounded-up",
        before="return amount // TAX_DIVISOR",
        after="return (amount + 24) // TAX_DIVISOR",
    ),
    _planted(
        name="one-exempt-side-pays",
        before="if self.exempt[sender] or self.exempt[receiver]:",
        after="if self.exempt[sender] and self.exempt[receiver]:",
    ),
    _planted(
        name="tax-on-top",
        before="erc20._transfer(sender, receiver, amount - tax)",
        after="erc20._transfer(sender, receiver, amount)",
    ),
    _planted(
        name="allowance-spent-without-tax",
        before="erc20._spend_allowance(sender, msg.sender, amount)",
        after="erc20._spend_allowance(sender, msg.sender, amount - self._tax_on(sender, receiver, amount))",
    ),
    _planted(
        name="exemption-moves-instead-of-growing",
        before="    self.exempt[account] = True\n",
        after="    self.exempt[account] = True\n    self.exempt[TAX_RECIPIENT] = account == TAX_RECIPIENT\n",
    ),
    _planted(
        name="more-than-the-supply",
        before="erc20._mint(msg.sender, SUPPLY)",
        after="erc20._mint(msg.sender, SUPPLY + 1)",
    ),
    _planted(
        name="another-domain",
        before='erc20.__init__("ParalleliX", "PRLX", 18, "ParalleliX", "1")',
        after='erc20.__init__("ParalleliX", "PRLX", 18, "ParalleliX", "2")',
    ),
)
