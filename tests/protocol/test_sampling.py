from __future__ import annotations

import hashlib
import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vector_files as vectors
from parallelix.protocol import sampling
from parallelix.protocol.encoding import to_hex
from parallelix.protocol.errors import Malformed
from parallelix.protocol.records import AuditRecord, decode_record, record_hash

VECTORS = vectors.load("sampling")
MASTER = bytes.fromhex(VECTORS["master"][2:])
AUDITED = [decode_record(each["canonical"].encode()) for each in vectors.load("records")["audited"]["records"]]


def secret_of(epoch: int) -> bytes:
    return next(bytes.fromhex(each["secret"][2:]) for each in VECTORS["epochs"] if each["epoch"] == epoch)


def test_secrets_and_commitments_follow_by_hand() -> None:
    for each in VECTORS["epochs"]:
        label = b"parallelix/sampling/v1" + each["epoch"].to_bytes(8, "big")
        secret = hmac.new(MASTER, label, hashlib.sha256).digest()
        assert secret.hex() == each["secret"][2:] == sampling.epoch_secret(MASTER, each["epoch"]).hex()
        assert hashlib.sha256(secret).hexdigest() == each["commitment"][2:] == sampling.commitment(secret).hex()


def test_draws_follow_by_hand_and_a_higher_rate_draws_whatever_a_lower_one_does() -> None:
    secret = secret_of(VECTORS["epoch"])
    for each in VECTORS["draws"]:
        digest = hmac.new(secret, bytes.fromhex(each["poe_commitment"][2:]), hashlib.sha256).digest()
        drawn = int.from_bytes(digest[:8], "big")
        assert drawn == int(each["draw"]) == sampling.draw(secret, each["poe_commitment"])
        assert [rate for rate in (100, 50, 20, 10) if drawn / 2**64 < rate / 100] == each["drawn_at"]
        assert each["drawn_at"] == [*sampling.RATES_PERCENT][: len(each["drawn_at"])]


def test_the_audits_of_the_vectors_are_those_that_were_drawn() -> None:
    audited = {each.execution_hash for each in AUDITED if isinstance(each, AuditRecord)}
    for each in AUDITED:
        if not isinstance(each, AuditRecord):
            draw = sampling.draw(secret_of(each.epoch), each.poe_commitment)
            assert sampling.drawn(draw, each.rate) == (record_hash(each) in audited)


@pytest.mark.parametrize("case", VECTORS["thresholds"], ids=lambda case: str(case["rate"]))
def test_the_first_draw_that_is_not_drawn(case: dict[str, str]) -> None:
    rate, first = int(case["rate"]), int(case["first_not_drawn"])
    assert sampling.drawn(first - 1, rate)
    assert not sampling.drawn(first, rate)


@given(st.integers(0, 2**64 - 1))
def test_a_rate_of_nought_draws_none_and_of_a_hundred_all(draw: int) -> None:
    assert not sampling.drawn(draw, 0)
    assert sampling.drawn(draw, 100)


@pytest.mark.parametrize("commitment", ["", "0x", "0x" + "ab" * 31, "0x" + "ab" * 33, "ab" * 32, "0x" + "AB" * 32])
def test_only_a_hash_has_a_draw(commitment: str) -> None:
    with pytest.raises(Malformed, match="poe_commitment"):
        sampling.draw(secret_of(0), commitment)


@vectors.examples(100)
@given(st.binary(min_size=32, max_size=32), st.binary(min_size=32, max_size=32))
def test_another_secret_draws_otherwise(secret: bytes, commitment: bytes) -> None:
    other = hashlib.sha256(secret).digest()
    text = to_hex(commitment)
    assert sampling.draw(secret, text) != sampling.draw(other, text)
