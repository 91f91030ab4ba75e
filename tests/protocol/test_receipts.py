from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterator
from typing import Any, TypeAlias

import msgspec
import pytest
import rfc8785
from eth_account import Account
from eth_account.messages import encode_defunct

import vector_files as vectors
from parallelix.protocol import canonical, merkle, receipts, records, signing
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.receipts import AuditPart, Receipt

VECTORS = vectors.load("receipts")
CASES = vectors.named(VECTORS["receipts"])
EARLY, FULL = (msgspec.convert(CASES[name]["receipt"], Receipt) for name in ("before its batch", "with its batch"))
PENDING, OVERTURNED, SPARED = (
    msgspec.convert(CASES[name]["receipt"], Receipt)
    for name in ("drawn, no verdict yet", "with an audit that disagreed", "not drawn")
)
PAYLOAD, RESULT = VECTORS["payload"].encode(), VECTORS["result"].encode()
COORDINATOR = signing.NodeKey(bytes.fromhex(VECTORS["coordinator_key"]["secret"][2:]))
STRANGER = signing.NodeKey(b"\x05" * 32)


def failed(receipt: Receipt, payload: bytes = PAYLOAD, result: bytes = RESULT) -> set[str]:
    checks = receipts.verify(receipt, payload=payload, result=result, coordinator=COORDINATOR.address)
    return {name for name, holds, _ in checks if not holds}


@pytest.mark.parametrize("name", CASES)
def test_each_vector_holds_and_is_signed_as_another_library_reads_it(name: str) -> None:
    case = CASES[name]
    unsigned = rfc8785.dumps({**case["receipt"], "signature": ""})
    parts = (b"parallelix/receipt/v1", unsigned)
    digest = hashlib.sha256(b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
    text = f"parallelix-coordinator:receipt:{case['receipt']['chain_id']}:0x{digest}"

    assert case["unsigned"].encode() == unsigned
    assert case["text"] == text
    signature = case["receipt"]["signature"]
    assert Account.recover_message(encode_defunct(text=text), signature=signature) == case["receipt"]["coordinator"]
    assert failed(msgspec.convert(case["receipt"], Receipt)) == set()


def test_the_checks_are_said_in_words_and_each_can_be_made() -> None:
    early = receipts.verify(EARLY)
    full = receipts.verify(FULL, payload=PAYLOAD, result=RESULT, coordinator=COORDINATOR.address.lower())

    assert [name for name, _, _ in early] == ["record", "coordinator"]
    assert [name for name, _, _ in full] == ["record", "coordinator", "signer", "input", "result", "batch"]
    assert all(holds and len(words) > 20 for _, holds, words in early + full)


def test_what_became_of_an_audit_is_said_in_words() -> None:
    said = {audit_of(receipt).state: receipts.verify(receipt)[3:] for receipt in (PENDING, OVERTURNED, SPARED)}

    assert said == {
        "pending": [("audit", True, "no audit is recorded, and the record's rate is 50 %")],
        "disagree": [
            ("audit", True, "one audit is recorded, names this very record, and says: disagree"),
            ("audit batch", True, "the audit's record is in the batch that the receipt names for it"),
            ("draw", True, "by the secret of epoch 3, this record was drawn at a rate of 50 %"),
        ],
        "not_drawn": [
            ("audit", True, "no audit is recorded, and the record's rate is 20 %"),
            ("draw", True, "by the secret of epoch 3, this record was not drawn at a rate of 20 %"),
        ],
    }


def audit_of(receipt: Receipt) -> AuditPart:
    assert isinstance(receipt.audit, AuditPart)
    return receipt.audit


def with_audit(receipt: Receipt, **changes: Any) -> Receipt:
    """Signed by the coordinator, whatever it says."""
    audit = msgspec.structs.replace(audit_of(receipt), **changes)
    return receipts.sign(msgspec.structs.replace(receipt, signature="", audit=audit), COORDINATOR)


def with_audit_record(**changes: Any) -> Receipt:
    """The overturned receipt with another record of its audit, which has no batch yet."""
    record = msgspec.structs.replace(audit_of(OVERTURNED).records[0].record, **changes)
    found = receipts.RecordedAudit(record=record, record_hash=records.record_hash(record))
    return with_audit(OVERTURNED, records=(found,))


def test_an_audit_without_a_batch_holds_as_far_as_it_goes() -> None:
    assert failed(with_audit_record()) == set()
    assert [name for name, _, _ in receipts.verify(with_audit_record())] == [
        "record", "coordinator", "batch", "audit", "draw",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lie", "expected"),
    [
        (with_audit_record(execution_hash=FULL.record_hash), {"audit"}),
        (with_audit_record(verdict="agree"), {"audit"}),
        (with_audit_record(sequence=2), {"audit"}),
        (with_audit(OVERTURNED, state="agree"), {"audit"}),
        (with_audit(OVERTURNED, records=()), {"audit"}),
        (with_audit(OVERTURNED, state="pending", records=(), refunded_wei="0"), set[str]()),
        (with_audit(OVERTURNED, state="not_drawn", records=(), refunded_wei="0"), {"draw"}),
        (with_audit(OVERTURNED, state="off", records=(), refunded_wei="0"), {"audit", "draw"}),
        (with_audit(PENDING, state="not_drawn"), set[str]()),
        (with_audit(PENDING, state="off"), {"audit"}),
        (with_audit(PENDING, refunded_wei="1"), {"audit"}),
        (with_audit(SPARED, state="pending"), {"draw"}),
        (with_audit(SPARED, state="agree", refunded_wei="0"), {"audit", "draw"}),
    ],
)
def test_a_lie_about_the_audit_fails_though_the_coordinator_signs_it(lie: Receipt, expected: set[str]) -> None:
    assert failed(lie) == expected


@pytest.mark.parametrize(
    "change",
    [{"secret": "0x" + "ab" * 32}, {"secret": "x"}, {"secret": "0x"}, {"commitment": "0x" + "ab" * 32}],
    ids=str,
)
def test_another_secret_than_was_committed_to_proves_no_draw(change: dict[str, str]) -> None:
    public = audit_of(SPARED).epoch
    assert public is not None
    epoch = msgspec.structs.replace(public, **change)

    assert failed(with_audit(SPARED, epoch=epoch)) == {"draw"}


def test_the_epoch_must_be_the_one_that_the_record_names() -> None:
    public = audit_of(SPARED).epoch
    assert public is not None
    other = msgspec.structs.replace(public, epoch=4)

    assert failed(with_audit(SPARED, epoch=other)) == {"audit"}


def test_a_receipt_from_before_there_were_audits_still_holds_and_may_not_pretend_to_be_newer() -> None:
    assert b"audit" not in canonical.encode(FULL)
    assert failed(FULL) == set()
    for builtins, version in ((msgspec.to_builtins(FULL), 2), (msgspec.to_builtins(SPARED), 1)):
        with pytest.raises(Malformed, match="a receipt of version 2 has `audit`"):
            canonical.decode_json(msgspec.json.encode({**builtins, "version": version}), Receipt)


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every plain value inside, and of each object that may be absent."""
    if isinstance(value, dict):
        for key, inner in value.items():  # pyright: ignore[reportUnknownVariableType]
            yield from leaves(inner, (*path, str(key)))  # pyright: ignore[reportUnknownArgumentType]
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            yield from leaves(inner, (*path, at))
    else:
        yield path


Path: TypeAlias = "tuple[str | int, ...]"
PATHS: list[tuple[Receipt, Path]] = [
    (receipt, path)
    for receipt in (FULL, OVERTURNED)
    for path in [*leaves(msgspec.to_builtins(receipt)), ("batch",), ("proof",)]
]


def edited(receipt: Receipt, path: Path) -> Receipt | None:
    """The receipt with one value changed; nothing where it then is no receipt at all."""
    value: Any = copy.deepcopy(msgspec.json.decode(msgspec.json.encode(receipt)))
    inner: Any = value
    for step in path[:-1]:
        inner = inner[step]
    old = inner[path[-1]]
    if isinstance(old, str):
        inner[path[-1]] = old[:-1] + ("1" if old[-1] != "1" else "2")
    else:
        inner[path[-1]] = old + 1 if isinstance(old, int) else None
    try:
        return msgspec.convert(value, Receipt)
    except msgspec.ValidationError:
        return None


@pytest.mark.parametrize(("whole", "path"), PATHS)
def test_a_receipt_with_any_value_changed_fails_a_check(whole: Receipt, path: Path) -> None:
    receipt = edited(whole, path)

    assert receipt is None or failed(receipt)


RESTS_ON_THE_SIGNATURE_ALONE = {
    ("charge_wei",),
    ("chain_id",),
    ("anchor",),
    ("batch", "number"),
    ("batch", "previous_hash"),
    ("batch", "head_hash"),
    ("audit", "refunded_wei"),
    ("audit", "records", 0, "batch", "number"),
    ("audit", "records", 0, "batch", "head_hash"),
    ("audit", "epoch", "began_at"),
    ("audit", "epoch", "revealed_at"),
}
"""Where the batch's first or last record is this one, its heads are compared with it too."""


@pytest.mark.parametrize(("whole", "path"), PATHS)
def test_what_even_the_coordinator_cannot_change_and_sign_again(whole: Receipt, path: Path) -> None:
    """What holds by arithmetic holds against the coordinator too; the rest is its word, or is asked of the chain."""
    receipt = edited(whole, path)
    if receipt is None or path == ("signature",):
        return

    still_fails = bool(failed(receipts.sign(msgspec.structs.replace(receipt, signature=""), COORDINATOR)))

    at_the_end = whole is OVERTURNED and path == ("batch", "head_hash")
    assert still_fails == (path not in RESTS_ON_THE_SIGNATURE_ALONE or at_the_end)


def test_a_receipt_by_a_stranger_holds_by_itself_but_not_for_who_knows_the_coordinator() -> None:
    forged = receipts.sign(
        msgspec.structs.replace(FULL, signature="", coordinator=STRANGER.address, charge_wei="1"), STRANGER
    )

    assert all(holds for _, holds, _ in receipts.verify(forged))
    assert failed(forged) == {"signer"}


def test_a_receipt_that_names_the_coordinator_but_is_signed_by_a_stranger_fails() -> None:
    assert failed(receipts.sign(msgspec.structs.replace(FULL, signature=""), STRANGER)) == {"coordinator"}


@pytest.mark.parametrize("signature", ["", "0x", "0x" + "00" * 65, "0x" + "ff" * 65, "0x" + "00" * 64, "\ud800", "x"])
def test_a_broken_signature_fails_and_raises_nothing(signature: str) -> None:
    assert failed(msgspec.structs.replace(FULL, signature=signature)) == {"coordinator"}


@pytest.mark.parametrize("salt", ["", "0x", "00" * 32, "0x" + "AB" * 32, "0x" + "ab" * 31, "0x" + "a b " * 16, "x"])
def test_a_broken_salt_fails_and_raises_nothing(salt: str) -> None:
    assert failed(msgspec.structs.replace(FULL, request_salt=salt)) == {"coordinator", "input", "result"}


def test_another_prompt_or_answer_is_noticed() -> None:
    assert failed(FULL, payload=PAYLOAD + b" ") == {"input"}
    assert failed(FULL, result=RESULT.replace(b"Vienna", b"Berlin")) == {"result"}
    assert failed(FULL, payload=RESULT, result=PAYLOAD) == {"input", "result"}


@pytest.mark.parametrize("missing", ["batch", "proof"])
def test_a_batch_without_its_proof_or_a_proof_without_its_batch_fails(missing: str) -> None:
    half = msgspec.structs.replace(FULL, signature="", **{missing: None})

    assert failed(receipts.sign(half, COORDINATOR)) == {"batch"}


@pytest.mark.parametrize(
    "change",
    [
        {"index": 1},
        {"index": 3},
        {"index": 2**53 - 1},
        {"count": 3},
        {"count": 2**53 - 1},
        {"siblings": ()},
        {"siblings": ("0x" + "00" * 32,) * 2},
        {"siblings": ("0x00", "0x00")},
        {"siblings": ("x",) * 100_000},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_wrong_proof_fails_even_when_the_coordinator_signs_it(change: dict[str, Any]) -> None:
    assert FULL.proof is not None
    proof = msgspec.structs.replace(FULL.proof, **change)

    assert failed(receipts.sign(msgspec.structs.replace(FULL, signature="", proof=proof), COORDINATOR)) == {"batch"}


@pytest.mark.parametrize(
    "change",
    [{"first": 0, "last": 3}, {"last": 5}, {"count": 5}, {"first": 3, "last": 6}, {"merkle_root": "0x" + "00" * 32}],
    ids=str,
)
def test_a_batch_whose_numbers_do_not_agree_fails(change: dict[str, Any]) -> None:
    assert FULL.batch is not None
    batch = msgspec.structs.replace(FULL.batch, **change)

    assert failed(receipts.sign(msgspec.structs.replace(FULL, signature="", batch=batch), COORDINATOR)) == {"batch"}


def test_the_ends_of_a_batch_are_compared_with_a_record_at_its_end() -> None:
    alone = records.Batch(
        number=1,
        previous_hash=FULL.record.previous_hash,
        head_hash=FULL.record_hash,
        first=3,
        last=3,
        count=1,
        merkle_root="0x" + hashlib.sha256(b"\0" + bytes.fromhex(FULL.record_hash[2:])).hexdigest(),
    )
    proof = receipts.MerkleProof(index=0, count=1, siblings=())

    for change, expected in [({}, set[str]()), ({"previous_hash": "0x"}, {"batch"}), ({"head_hash": "0x"}, {"batch"})]:
        batch = msgspec.structs.replace(alone, **change)
        receipt = receipts.sign(msgspec.structs.replace(FULL, signature="", batch=batch, proof=proof), COORDINATOR)
        assert failed(receipt) == expected, change


def test_a_record_is_proven_in_its_own_batch_and_in_no_other() -> None:
    """Two batches of equal records but for their place: a batch and a proof that hold belong to one record alone."""
    chain: list[records.ExecutionRecord] = []
    head = records.GENESIS_HASH
    for sequence in range(6):
        chain.append(msgspec.structs.replace(FULL.record, sequence=sequence, previous_hash=head))
        head = records.record_hash(chain[-1])
    whole: list[Receipt] = []
    for number in range(2):
        part = chain[3 * number : 3 * number + 3]
        hashes = [records.record_hash_bytes(each) for each in part]
        batch = records.Batch(
            number=number,
            previous_hash=part[0].previous_hash,
            head_hash=records.record_hash(part[-1]),
            first=part[0].sequence,
            last=part[-1].sequence,
            count=3,
            merkle_root=to_hex(merkle.root(hashes)),
        )
        for index, record in enumerate(part):
            siblings = tuple(map(to_hex, merkle.proof(hashes, index)))
            proof = receipts.MerkleProof(index=index, count=3, siblings=siblings)
            receipt = msgspec.structs.replace(
                FULL, record=record, record_hash=records.record_hash(record), batch=batch, proof=proof
            )
            whole.append(receipt)

    for one in whole:
        for other in whole:
            mixed = msgspec.structs.replace(one, batch=other.batch, proof=other.proof)
            assert failed(receipts.sign(mixed, COORDINATOR)) == (set[str]() if one is other else {"batch"})


def test_a_receipt_reads_back_from_its_json() -> None:
    for receipt in (EARLY, FULL, PENDING, OVERTURNED, SPARED):
        assert canonical.decode(canonical.encode(receipt), Receipt) == receipt
    with pytest.raises(Malformed):
        canonical.decode_json(msgspec.json.encode({**msgspec.to_builtins(FULL), "version": 3}), Receipt)


def test_a_receipt_never_identifies_the_node() -> None:
    text = canonical.encode(OVERTURNED).decode()
    node = vectors.load("signing")["key"]

    assert "node" not in text
    assert "att_" not in text
    assert not any(value[2:] in text for value in node.values())
    assert vectors.load("poe")["example"]["poe"][2:] not in text
