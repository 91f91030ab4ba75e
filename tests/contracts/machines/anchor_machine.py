"""The anchor beside its model: a validator anchors, commits and reveals, sometimes wrongly, and roles change hands."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from typing import Any, TypeVar

from anchor_model import AnchorModel
from anchor_scene import (
    DEPLOYER,
    EMPTY,
    STRANGER,
    SUCCESSOR,
    VALIDATOR,
    ZERO_ADDRESS,
    AnchoredBatch,
    commitment_of,
    deploy_anchor,
    secret_of,
)
from harness import ContractMachine, Mutant, run_machine
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule
from logs import events_of

from parallelix.protocol import merkle

T = TypeVar("T")

LAST_NUMBER = 2**64 - 1
CALLS_BETWEEN_LOOKS = 4
"""All of the anchor's answers after every call would take twice as long; what is wrong then stays wrong."""

accounts = st.sampled_from((DEPLOYER, VALIDATOR, STRANGER, SUCCESSOR))
accounts_or_nobody = st.sampled_from((DEPLOYER, VALIDATOR, STRANGER, SUCCESSOR, ZERO_ADDRESS, ZERO_ADDRESS))
counts = st.integers(1, 20) | st.integers(1, 10**6)
mostly_none = functools.partial(st.one_of, st.just(""), st.just(""))
some_stranger = st.sampled_from(("",) * 16 + (DEPLOYER, VALIDATOR, STRANGER, SUCCESSOR))
batch_flaws = mostly_none(
    st.sampled_from(
        (
            "another head",
            "no head before it",
            "no records",
            "one record more",
            "one record less",
            "ends before it begins",
            "a gap",
            "an overlap",
            "up to the last number",
            "too many",
            "too many",
            "no head hash",
            "no root",
        )
    )
)
secret_flaws = mostly_none(st.sampled_from(("another secret", "no secret", "its commitment")))
epoch_steps = st.sampled_from((0, 0, 0, 1, 1, 1, 2, 3, -1))
epoch_slips = st.sampled_from((0, 0, 0, 0, 0, -1, 1))
"""How far an epoch is from the one that is next."""


class AnchorMachine(ContractMachine):
    @initialize(epochs=st.sampled_from((0, 1, 2, 3, 3, 4, 4)))
    def deploy(self, epochs: int) -> None:
        self.anchor: Any = deploy_anchor()
        self.calls = 0
        self.model = AnchorModel(owner=DEPLOYER, validator=VALIDATOR)
        self.records = [hashlib.sha256(b"record").digest()]
        self.logged: list[dict[str, Any]] = []
        self.held: list[bytes] = []
        self.shown: list[bytes] = []
        for _ in range(epochs):
            self.commit(slip=0, is_empty=False, stranger="")

    @rule(count=counts)
    def anchor_a_batch(self, count: int) -> None:
        self.anchor_batch(count=count, step=0, flaw="", stranger="")

    @rule(count=counts, step=epoch_steps, flaw=batch_flaws, stranger=some_stranger)
    def anchor_any_batch(self, count: int, step: int, flaw: str, stranger: str) -> None:
        self.anchor_batch(count=count, step=step, flaw=flaw, stranger=stranger)

    def anchor_batch(self, *, count: int, step: int, flaw: str, stranger: str) -> None:
        first = self.model.next_sequence
        self.records = [hashlib.sha256(b"%d of %d" % (at, first)).digest() for at in range(min(count, 9))]
        batch = AnchoredBatch(
            previous_hash=self.model.head,
            head_hash=hashlib.sha256(b"head %d" % (first + count)).digest(),
            first=first,
            last=first + count - 1,
            merkle_root=merkle.root(self.records),
            count=count,
            epoch=max(0, self.model.newest_epoch + step),
        )
        batch, caller = with_flaw(batch, flaw), stranger or self.model.validator
        refusal = self.model.anchor_batch(caller, batch)
        call = functools.partial(self.anchor.anchorBatch, *batch.arguments, sender=caller)
        answer = self.attempt("anchorBatch", lambda: (call(), events_of(self.anchor)), refusal=refusal)
        if answer is not None:
            number, [(name, fields)] = answer
            assert (name, fields["number"], number) == ("BatchAnchored", number, len(self.model.roots) - 1)
            self.logged.append(fields)
            self.check_proofs(number)

    @rule(slip=epoch_slips, is_empty=st.sampled_from((False,) * 9 + (True,)), stranger=some_stranger)
    def commit_to_a_secret(self, slip: int, is_empty: bool, stranger: str) -> None:
        self.commit(slip=slip, is_empty=is_empty, stranger=stranger)

    def commit(self, *, slip: int, is_empty: bool, stranger: str) -> None:
        epoch, caller = max(0, len(self.model.commitments) + slip), stranger or self.model.validator
        commitment = EMPTY if is_empty else commitment_of(epoch)
        refusal = self.model.commit_sampling(caller, epoch, commitment)
        call = functools.partial(self.anchor.commitSampling, epoch, commitment, sender=caller)
        logged = self.attempt("commitSampling", lambda: (call(), events_of(self.anchor))[1], refusal=refusal)
        assert logged in (None, [("SamplingCommitted", {"epoch": epoch, "commitment": commitment})])

    @rule(slip=epoch_slips, flaw=secret_flaws, stranger=some_stranger)
    def reveal_a_secret(self, slip: int, flaw: str, stranger: str) -> None:
        epoch, caller = max(0, len(self.model.secrets) + slip), stranger or self.model.validator
        flawed = {"another secret": secret_of(epoch + 1), "no secret": EMPTY, "its commitment": commitment_of(epoch)}
        secret = flawed.get(flaw, secret_of(epoch))
        refusal = self.model.reveal_sampling(caller, epoch, secret)
        call = functools.partial(self.anchor.revealSampling, epoch, secret, sender=caller)
        logged = self.attempt("revealSampling", lambda: (call(), events_of(self.anchor))[1], refusal=refusal)
        assert logged in (None, [("SamplingRevealed", {"epoch": epoch, "secret": secret})])

    @rule(role=st.sampled_from(("validator", "owner", "new owner")), account=accounts_or_nobody, stranger=some_stranger)
    def a_role_changes_hands(self, role: str, account: str, stranger: str) -> None:
        caller = stranger or self.model.owner
        if role == "validator":
            refusal = self.model.set_validator(caller, account)
            self.attempt("setValidator", lambda: self.anchor.setValidator(account, sender=caller), refusal=refusal)
        elif role == "owner":
            refusal = self.model.transfer_ownership(caller, account)
            call = functools.partial(self.anchor.transfer_ownership, account, sender=caller)
            self.attempt("transfer_ownership", call, refusal=refusal)
        else:
            offered_to = self.model.pending_owner
            taker = stranger or (DEPLOYER if offered_to == ZERO_ADDRESS else offered_to)
            refusal = self.model.accept_ownership(taker)
            self.attempt("accept_ownership", lambda: self.anchor.accept_ownership(sender=taker), refusal=refusal)

    def attempt(self, rule: str, call: Callable[[], T], *, refusal: str | None) -> T | None:
        self.calls += 1
        return super().attempt(rule, call, refusal=refusal)

    def check_proofs(self, number: int) -> None:
        """The records just anchored are in their batch, and in no batch before it."""
        count, tree = len(self.records), merkle.Tree(self.records)
        index = number % count
        proof = tree.proof(index)
        assert self.anchor.verify(number, self.records[index], index, count, proof)
        assert not self.anchor.verify(number - 1, self.records[index], index, count, proof)

    @invariant()
    def the_anchor_answers_as_its_model(self) -> None:
        assert self.anchor.head() == self.model.head
        assert self.anchor.nextSequence() == self.model.next_sequence
        assert self.anchor.newestEpoch() == self.model.newest_epoch
        assert self.anchor.validator() == self.model.validator
        assert (self.anchor.owner(), self.anchor.pending_owner()) == (self.model.owner, self.model.pending_owner)

    @precondition(lambda self: self.calls % CALLS_BETWEEN_LOOKS == 0)
    @invariant()
    def invariant_i11_what_is_anchored_never_changes(self) -> None:
        held = [self.anchor.rootOf(number) for number in range(self.anchor.batchCount())]
        assert held[: len(self.held)] == self.held
        assert held == self.model.roots
        assert self.anchor.rootOf(len(held)) == EMPTY
        self.held = held

    @invariant()
    def invariant_i11_the_chain_of_batches_is_unbroken(self) -> None:
        """From what the contract logged alone: each batch continues the one before it."""
        head, sequence, epoch = EMPTY, 0, 0
        for number, batch in enumerate(self.logged, start=1):
            assert (batch["number"], batch["previousHash"], batch["first"]) == (number, head, sequence)
            assert batch["last"] - batch["first"] + 1 == batch["count"] > 0
            assert batch["epoch"] >= epoch
            head, sequence, epoch = batch["headHash"], batch["last"] + 1, batch["epoch"]
        assert (self.anchor.head(), self.anchor.batchCount()) == (head, len(self.logged) + 1)

    @precondition(lambda self: self.calls % CALLS_BETWEEN_LOOKS == 0)
    @invariant()
    def invariant_i11_secrets_bind_before_they_are_shown(self) -> None:
        shown = [self.anchor.secretOf(epoch) for epoch in range(self.anchor.revealedEpochs())]
        assert shown[: len(self.shown)] == self.shown
        assert shown == self.model.secrets
        assert self.anchor.committedEpochs() == len(self.model.commitments)
        assert not shown or len(shown) < len(self.model.commitments)
        assert self.anchor.newestEpoch() < 2 or len(shown) >= self.anchor.newestEpoch() - 1
        for epoch, secret in enumerate(shown[-1:], start=len(shown) - 1):
            assert hashlib.sha256(secret).digest() == self.anchor.commitmentOf(epoch) == self.model.commitments[epoch]
        self.shown = shown


def with_flaw(batch: AnchoredBatch, flaw: str) -> AnchoredBatch:
    changes: dict[str, dict[str, Any]] = {
        "": {},
        "another head": {"previous_hash": hashlib.sha256(batch.previous_hash).digest()},
        "no head before it": {"previous_hash": EMPTY},
        "no records": {"count": 0},
        "one record more": {"count": batch.count + 1},
        "one record less": {"last": batch.last + 1},
        "ends before it begins": {"first": batch.last + 1, "last": batch.first},
        "a gap": {"first": batch.first + 1, "last": batch.last + 1},
        "an overlap": {"first": max(0, batch.first - 1), "count": batch.count + (batch.first > 0)},
        "up to the last number": {"last": LAST_NUMBER},
        "too many": {"last": batch.first + 2**32, "count": 2**32 + 1},
        "no head hash": {"head_hash": EMPTY},
        "no root": {"merkle_root": EMPTY},
    }
    return dataclasses.replace(batch, **changes[flaw])


_planted = functools.partial(
    Mutant,
    invariant="I11",
    contract="ExecutionAnchor",
    check=functools.partial(run_machine, AnchorMachine, calls=1_500, seed=1, shrink=False),
)

MUTANTS = (
    _planted(
        name="the-chain-may-fork",
        before="assert previousHash == self.head,",
        after="assert previousHash != empty(bytes32) or self.head == empty(bytes32),",
    ),
    _planted(
        name="the-head-stays",
        before="self.head = head_hash",
        after="self.head = self.head if number == 3 else head_hash",
    ),
    _planted(
        name="a-batch-overwrites-another",
        before="self.roots[number] = merkle_root",
        after="self.roots[number % 4] = merkle_root",
    ),
    _planted(
        name="the-number-stays",
        before="batchCount=number + 1",
        after="batchCount=number + 1 if number < 3 else number",
    ),
    _planted(
        name="records-may-overlap",
        before='assert convert(first, uint256) == progress.nextSequence, "anchor: first is not the next record"',
        after='assert convert(first, uint256) <= progress.nextSequence, "anchor: first is not the next record"',
    ),
    _planted(
        name="the-secret-may-wait-one-epoch-longer",
        before="epoch < 2 or epoch - 2 < self.revealedEpochs",
        after="epoch < 2 or epoch - 2 <= self.revealedEpochs",
    ),
    _planted(
        name="the-secret-in-use-is-shown",
        before="assert epoch + 1 < self.committedEpochs",
        after="assert epoch < self.committedEpochs",
    ),
)
