from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import random
import zlib
from collections.abc import Iterable
from typing import Any

import msgspec
import pytest
import rich.pretty
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from joserfc.jwk import RSAKey

import vector_files as vectors
from parallelix.protocol import envelope, messages
from parallelix.protocol.encoding import to_base64url
from parallelix.protocol.errors import BadEnvelope, Malformed

VECTORS = vectors.load("envelope")
PAYLOAD, CHANNEL, AT_REST = VECTORS["payload"], VECTORS["channel"], VECTORS["at_rest"]
ENVELOPE: str = VECTORS["envelope"]
HEADER = msgspec.convert(json.loads(VECTORS["header"]), envelope.EnvelopeHeader)
UNIT, ATTEMPT = HEADER.unit, HEADER.attempt
OTHER_ATTEMPT, OTHER_UNIT = "att_" + "00" * 16, "req_" + "00" * 32


def raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


SEALED, CONTENT_KEY = raw(PAYLOAD["sealed"]), raw(PAYLOAD["content_key"])
SECRET = raw(CHANNEL["channel_secret"])


@functools.cache
def node_key() -> RSAKey:
    return RSAKey.import_key(VECTORS["envelope_private_key"])


@functools.cache
def other_key() -> RSAPrivateKey:
    key = load_pem_private_key((vectors.FOLDER / "keys" / "poe.pem").read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    return key


def other_node_key() -> RSAKey:
    return RSAKey.import_key(other_key())


def public_pem(key: RSAPrivateKey, kind: PublicFormat = PublicFormat.SubjectPublicKeyInfo) -> str:
    return key.public_key().public_bytes(Encoding.PEM, kind).decode()


def opened_by_hand(text: str, private_pem: str) -> tuple[dict[str, Any], bytes]:
    """RFC 7516 by its own words, with nothing but RSA-OAEP and AES-GCM."""
    header, wrapped, nonce, ciphertext, tag = text.split(".")
    private_key = load_pem_private_key(private_pem.encode(), None)
    assert isinstance(private_key, RSAPrivateKey)
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=None)
    key = private_key.decrypt(raw(wrapped), oaep)
    return json.loads(raw(header)), AESGCM(key).decrypt(raw(nonce), raw(ciphertext) + raw(tag), header.encode())


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


# --- The vectors, and what another implementation makes of them


def test_the_envelope_of_the_vectors_opens_by_hand_and_by_us_to_the_same() -> None:
    header, plaintext = opened_by_hand(ENVELOPE, VECTORS["envelope_private_key"])

    opened_header, secrets = envelope.open_envelope(ENVELOPE, private_key=node_key())

    assert header == json.loads(VECTORS["header"]) == msgspec.to_builtins(opened_header)
    assert json.loads(plaintext) == VECTORS["secrets"]
    assert {name: to_base64url(getattr(secrets, name)) for name in VECTORS["secrets"]} == VECTORS["secrets"]


def test_an_envelope_that_we_seal_opens_by_hand() -> None:
    secrets = envelope.Secrets(content_key=b"k" * 32, request_salt=b"s" * 32, channel_secret=b"c" * 32)
    recipient = envelope.load_rsa_public_key(VECTORS["envelope_key"])

    sealed = envelope.seal_envelope(secrets, header=HEADER, recipient=recipient)

    header, plaintext = opened_by_hand(sealed, VECTORS["envelope_private_key"])
    assert json.dumps(header, separators=(",", ":"), sort_keys=True) == VECTORS["header"]
    assert {name: raw(text) for name, text in json.loads(plaintext).items()} == msgspec.to_builtins(
        secrets, builtin_types=(bytes,)
    )
    assert envelope.open_envelope(sealed, private_key=node_key()) == (HEADER, secrets)
    assert len(sealed) < envelope.ENVELOPE_CHARACTERS_MAX // 2


def test_the_payload_of_the_vectors_opens_by_hand_and_by_us_to_the_same() -> None:
    associated = b"parallelix/payload/v1:" + UNIT.encode()

    by_hand = AESGCM(CONTENT_KEY).decrypt(SEALED[:12], SEALED[12:], associated)

    assert by_hand.decode() == PAYLOAD["plaintext"]
    assert envelope.open_payload(SEALED, unit_id=UNIT, content_key=CONTENT_KEY) == by_hand
    assert envelope.seal_payload(by_hand, unit_id=UNIT, content_key=CONTENT_KEY, nonce=SEALED[:12]) == SEALED
    assert PAYLOAD["payload_sha256"] == "0x" + hashlib.sha256(SEALED).hexdigest() == envelope.payload_digest(SEALED)


def test_channel_keys_are_hkdf_by_hand() -> None:
    extracted = hmac.digest(bytes(32), SECRET, "sha256")
    by_hand = {
        label: to_base64url(hmac.digest(extracted, b"parallelix/channel/v1:" + label.encode() + b"\x01", "sha256"))
        for label in ("acknowledgement", "delta", "result")
    }

    assert CHANNEL["keys"] == by_hand
    assert len(set(by_hand.values())) == 3


@pytest.mark.parametrize("at", range(len(CHANNEL["messages"])))
def test_channel_messages_of_the_vectors_open_by_hand(at: int) -> None:
    message = CHANNEL["messages"][at]
    nonce = message["connection"].to_bytes(4, "big") + message["counter"].to_bytes(8, "big")
    sealed = raw(message["sealed"])

    plaintext = AESGCM(raw(CHANNEL["keys"][message["label"]])).decrypt(nonce, sealed[12:], ATTEMPT.encode())

    assert sealed[:12] == nonce
    assert plaintext.decode() == message["plaintext"]
    if message["label"] == "delta":
        assert bytes.fromhex(message["frame"]) == len(sealed).to_bytes(4, "big") + sealed


def test_what_is_at_rest_opens_again() -> None:
    storage_key, sealed = raw(AT_REST["storage_key"]), raw(AT_REST["sealed"])

    assert envelope.unwrap_at_rest(storage_key, raw(AT_REST["wrapped_content_key"])) == CONTENT_KEY
    assert envelope.open_at_rest(storage_key, sealed, purpose=AT_REST["purpose"]).decode() == AT_REST["plaintext"]
    by_hand = AESGCM(storage_key).decrypt(sealed[:12], sealed[12:], AT_REST["purpose"].encode())
    assert by_hand.decode() == AT_REST["plaintext"]
    assert envelope.seal_at_rest(storage_key, by_hand, purpose=AT_REST["purpose"], nonce=sealed[:12]) == sealed


# --- Envelopes


def refused(text: str) -> bool:
    """Whether it is refused as an envelope; any other exception than `BadEnvelope` fails the test."""
    try:
        envelope.open_envelope(text, private_key=node_key())
    except BadEnvelope:
        return True
    return False


@pytest.mark.parametrize("name", vectors.named(VECTORS["refused"]))
def test_each_refused_vector_is_refused(name: str) -> None:
    assert refused(vectors.named(VECTORS["refused"])[name]["envelope"])


def test_a_zip_bomb_is_refused_before_it_is_unpacked() -> None:
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(20_000_000)) + packer.flush()
    header = json.dumps({**json.loads(VECTORS["header"]), "zip": "DEF"}, separators=(",", ":"), sort_keys=True)

    assert len(bomb) < 30_000
    assert refused(vectors.maker().compact_jwe(header.encode(), bomb, "bomb"))


def test_an_envelope_of_the_wrong_size_is_refused_before_any_key_is_touched() -> None:
    header, key, nonce, text, tag = ENVELOPE.split(".")
    sizes = {
        "A" * 4096: "not a compact JWE",
        "A" * 4097: "4097 characters, at most 4096",
        ".".join([header, key, to_base64url(raw(nonce) + b"x"), text, tag]): "a nonce of 13 or a tag of 16 bytes",
        ".".join([header, key, nonce, text, to_base64url(raw(tag)[:15])]): "a nonce of 12 or a tag of 15 bytes",
    }
    for given_text, why in sizes.items():
        with pytest.raises(BadEnvelope) as caught:
            envelope.open_envelope(given_text, private_key=node_key())
        assert why in str(caught.value.__cause__)


def test_an_envelope_for_another_key_is_refused() -> None:
    with pytest.raises(BadEnvelope):
        envelope.open_envelope(ENVELOPE, private_key=other_node_key())


def test_no_changed_bit_of_an_envelope_is_accepted() -> None:
    """Two bits of every byte; with PARALLELIX_FUZZ above 3 every bit of every byte."""
    chosen = random.Random(7)
    segments = ENVELOPE.split(".")
    tried = 0
    for at, segment in enumerate(segments):
        data = raw(segment)
        for byte in range(len(data)):
            for bit in chosen.sample(range(8), min(8, 2 * vectors.FUZZ)):
                changed = [*segments[:at], to_base64url(flipped(data, 8 * byte + bit)), *segments[at + 1 :]]
                assert refused(".".join(changed)), (at, byte, bit)
                tried += 1
    assert tried > 1800


def test_no_changed_character_of_an_envelope_is_accepted() -> None:
    chosen = random.Random(8)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_.=+/ \n\0\u00e9\ud800"
    for at, character in enumerate(ENVELOPE):
        other = chosen.choice(alphabet.replace(character, ""))
        assert refused(ENVELOPE[:at] + other + ENVELOPE[at + 1 :]), (at, other)


def test_no_cut_or_grown_envelope_is_accepted() -> None:
    chosen = random.Random(9)
    for length in range(len(ENVELOPE)):
        assert refused(ENVELOPE[:length]), length
    for at in range(0, len(ENVELOPE), 3):
        assert refused(ENVELOPE[:at] + chosen.choice("AB._") + ENVELOPE[at:]), at
        assert refused(ENVELOPE[:at] + ENVELOPE[at + 1 :]), at


def test_parts_of_two_envelopes_cannot_be_put_together() -> None:
    secrets = envelope.Secrets(content_key=b"k" * 32, request_salt=b"s" * 32, channel_secret=b"c" * 32)
    header = msgspec.structs.replace(HEADER, unit=OTHER_UNIT)
    one = ENVELOPE.split(".")
    other = envelope.seal_envelope(secrets, header=header, recipient=node_key()).split(".")

    for mask in range(1, 31):
        mixed = [other[part] if mask >> part & 1 else one[part] for part in range(5)]
        assert refused(".".join(mixed)), mask
    for at in range(4):
        swapped = one.copy()
        swapped[at], swapped[at + 1] = swapped[at + 1], swapped[at]
        assert refused(".".join(swapped)), at


@vectors.examples(150)
@given(st.text(st.characters(), max_size=50) | st.lists(st.binary(max_size=20).map(to_base64url)).map(".".join))
def test_junk_is_a_bad_envelope_and_nothing_else(junk: str) -> None:
    assert refused(junk)


@vectors.examples(60)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["alg", "enc", "zip"]), inner),
        max_leaves=6,
    )
)
def test_any_json_as_header_is_a_bad_envelope_and_nothing_else(header: Any) -> None:
    assert refused(".".join([to_base64url(json.dumps(header).encode()), *ENVELOPE.split(".")[1:]]))


def test_an_envelope_is_refused_with_any_other_work_than_its_own() -> None:
    own: dict[str, Any] = {"attempt_id": ATTEMPT, "unit_id": UNIT, "node_id": 7, "sealed_payload": SEALED}
    envelope.require_header(HEADER, **own)
    moved: list[dict[str, Any]] = [
        {"attempt_id": OTHER_ATTEMPT},
        {"unit_id": OTHER_UNIT},
        {"unit_id": UNIT.replace("req_", "sub_")},
        {"node_id": 8},
        {"node_id": 70},
        {"sealed_payload": SEALED + b"\0"},
        {"sealed_payload": flipped(SEALED, 0)},
        {"sealed_payload": b""},
    ]
    for change in moved:
        with pytest.raises(BadEnvelope, match="made for another"):
            envelope.require_header(HEADER, **(own | change))


# --- Payloads, and what is at rest


def assert_none_opens(sealed: Iterable[bytes], unit_id: str = UNIT, key: bytes = CONTENT_KEY) -> None:
    for each in sealed:
        with pytest.raises(BadEnvelope):
            envelope.open_payload(each, unit_id=unit_id, content_key=key)


def test_no_changed_bit_cut_or_growth_of_a_payload_is_accepted() -> None:
    assert_none_opens(flipped(SEALED, bit) for bit in range(8 * len(SEALED)))
    assert_none_opens(SEALED[:length] for length in range(len(SEALED)))
    assert_none_opens(SEALED[start:] for start in range(1, len(SEALED)))
    assert_none_opens([SEALED + b"\0", b"\0" + SEALED, SEALED + SEALED, b""])


@pytest.mark.parametrize("unit_id", [OTHER_UNIT, UNIT.replace("req_", "sub_"), UNIT[:-1], UNIT + "0", ""])
def test_a_payload_for_another_unit_is_refused(unit_id: str) -> None:
    assert_none_opens([SEALED], unit_id=unit_id)


def test_a_payload_under_another_key_is_refused() -> None:
    assert_none_opens([SEALED], key=flipped(CONTENT_KEY, 0))


def test_a_key_wrapped_under_another_storage_key_or_altered_is_refused() -> None:
    storage_key, wrapped = raw(AT_REST["storage_key"]), raw(AT_REST["wrapped_content_key"])
    changed = [flipped(wrapped, bit) for bit in range(8 * len(wrapped))]
    changed += [wrapped[:length] for length in range(len(wrapped))]
    changed += [wrapped + b"\0", wrapped + bytes(8)]

    for each in changed:
        with pytest.raises(BadEnvelope):
            envelope.unwrap_at_rest(storage_key, each)
    for bit in range(256):
        with pytest.raises(BadEnvelope):
            envelope.unwrap_at_rest(flipped(storage_key, bit), wrapped)


def test_stored_data_is_refused_under_another_purpose_or_key_or_altered() -> None:
    storage_key, sealed = raw(AT_REST["storage_key"]), raw(AT_REST["sealed"])

    for purpose in ("", "result:", f"payload:{UNIT}", f"result:{OTHER_UNIT}", AT_REST["purpose"] + " "):
        with pytest.raises(BadEnvelope):
            envelope.open_at_rest(storage_key, sealed, purpose=purpose)
    for key, data in [
        (flipped(storage_key, 9), sealed),
        *((storage_key, flipped(sealed, bit)) for bit in range(8 * len(sealed))),
        *((storage_key, sealed[:length]) for length in range(len(sealed))),
    ]:
        with pytest.raises(BadEnvelope):
            envelope.open_at_rest(key, data, purpose=AT_REST["purpose"])


# --- Channels


def opener(label: envelope.ChannelLabel = "delta", attempt_id: str = ATTEMPT, connection: int = 0) -> envelope.Opener:
    return envelope.Opener(SECRET, label=label, attempt_id=attempt_id, connection=connection)


def sealer(label: envelope.ChannelLabel = "delta", attempt_id: str = ATTEMPT, connection: int = 0) -> envelope.Sealer:
    return envelope.Sealer(SECRET, label=label, attempt_id=attempt_id, connection=connection)


texts = st.lists(st.binary(max_size=30), min_size=1, max_size=6)


@vectors.examples(60)
@given(texts, st.integers(0, 2**32 - 1))
def test_a_channel_carries_messages_in_order(sent: list[bytes], connection: int) -> None:
    sender, receiver = sealer(connection=connection), opener(connection=connection)

    assert [receiver.open(sender.seal(each)) for each in sent] == sent
    first = envelope.Sealer(SECRET, label="delta", attempt_id=ATTEMPT).seal(sent[0])
    assert opener(connection=0).open(first) == sent[0]
    assert envelope.Opener(SECRET, label="delta", attempt_id=ATTEMPT).open(first) == sent[0]


@vectors.examples(150)
@given(st.lists(st.integers(0, 4), min_size=1, max_size=8))
def test_a_channel_opens_a_run_from_its_first_message_and_nothing_else(order: list[int]) -> None:
    """Whatever is replayed, reordered or left out on the way is refused where it happens, and the rest still fits."""
    sender, receiver = sealer(), opener()
    sealed = [sender.seal(b"%d" % at) for at in range(5)]
    expected = 0

    for at in order:
        if at == expected:
            assert receiver.open(sealed[at]) == b"%d" % at
            expected += 1
        else:
            with pytest.raises(BadEnvelope, match="out of order, replayed"):
                receiver.open(sealed[at])


def test_no_changed_bit_or_cut_of_a_message_is_accepted_and_none_moves_the_channel() -> None:
    sealed, receiver = sealer().seal(b"a delta of some length"), opener()

    for each in [
        *(flipped(sealed, bit) for bit in range(8 * len(sealed))),
        *(sealed[:length] for length in range(len(sealed))),
        sealed + b"\0",
    ]:
        with pytest.raises(BadEnvelope):
            receiver.open(each)
    assert receiver.open(sealed) == b"a delta of some length"


@pytest.mark.parametrize(
    "wrong",
    [
        opener("result"),
        opener("acknowledgement"),
        opener(attempt_id=OTHER_ATTEMPT),
        opener(connection=1),
        envelope.Opener(bytes(32), label="delta", attempt_id=ATTEMPT),
    ],
    ids=["another label", "the acknowledgement", "another attempt", "another connection", "another secret"],
)
def test_a_message_means_nothing_in_another_channel(wrong: envelope.Opener) -> None:
    with pytest.raises(BadEnvelope):
        wrong.open(sealer().seal(b"delta"))


def test_no_nonce_is_used_twice_under_one_key() -> None:
    nonces = [sender.seal(b"x")[:12] for sender in map(each_connection, range(20)) for _ in range(20)]

    assert len(set(nonces)) == 400


def each_connection(connection: int) -> envelope.Sealer:
    return sealer(connection=connection)


@pytest.mark.parametrize("connection", [-1, 2**32])
def test_a_connection_number_that_would_wrap_around_is_our_own_fault(connection: int) -> None:
    with pytest.raises((AssertionError, OverflowError)):
        sealer(connection=connection)
    with pytest.raises((AssertionError, OverflowError)):
        opener(connection=connection)


# --- Results for the requester alone


def test_a_result_opens_for_its_requester_by_hand_and_by_us() -> None:
    case = VECTORS["requester"]
    header, plaintext = opened_by_hand(case["sealed"], VECTORS["envelope_private_key"])

    assert header["unit"] == case["unit_id"]
    assert plaintext.decode() == case["plaintext"]
    assert envelope.open_as_requester(case["sealed"], node_key(), unit_id=case["unit_id"]) == plaintext


@pytest.mark.parametrize("length", [0, 1, 65_537, 3_000_000])
def test_results_of_every_size_come_back(length: int) -> None:
    recipient = envelope.load_rsa_public_key(VECTORS["envelope_key"])

    sealed = envelope.seal_to_requester(b"x" * length, recipient, unit_id=UNIT)

    assert envelope.open_as_requester(sealed, node_key(), unit_id=UNIT) == b"x" * length


def test_a_result_for_another_request_key_or_use_is_refused() -> None:
    sealed: str = VECTORS["requester"]["sealed"]
    refusals = [
        (sealed, node_key(), OTHER_UNIT),
        (sealed, other_node_key(), UNIT),
        (ENVELOPE, node_key(), UNIT),
        (sealed + "A" * envelope.SEALED_RESULT_CHARACTERS_MAX, node_key(), UNIT),
        *(
            (sealed[:at] + chr(ord(sealed[at]) ^ 1) + sealed[at + 1 :], node_key(), UNIT)
            for at in range(0, len(sealed), 7)
        ),
        *((sealed[:length], node_key(), UNIT) for length in range(0, len(sealed), 7)),
    ]
    for text, key, unit_id in refusals:
        with pytest.raises(BadEnvelope):
            envelope.open_as_requester(text, key, unit_id=unit_id)
    assert refused(sealed)


def test_a_result_as_long_as_the_wire_allows_fits_its_bound() -> None:
    assert len(to_base64url(bytes(messages.RESULT_BYTES_MAX // 64))) * 64 < envelope.SEALED_RESULT_CHARACTERS_MAX


# --- Keys


def der(tag: int, *parts: bytes) -> bytes:
    body = b"".join(parts)
    length = len(body).to_bytes((len(body).bit_length() + 7) // 8 or 1, "big")
    return bytes([tag]) + (length if len(body) < 128 else bytes([0x80 | len(length)]) + length) + body


def der_integer(value: int) -> bytes:
    return der(0x02, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def pem_of(modulus: int, exponent: int) -> str:
    """A public key in PEM that no library would write."""
    key = der(0x30, der_integer(modulus), der_integer(exponent))
    algorithm = bytes.fromhex("300d06092a864886f70d0101010500")
    body = base64.encodebytes(der(0x30, algorithm, der(0x03, b"\0", key))).decode()
    return f"-----BEGIN PUBLIC KEY-----\n{body}-----END PUBLIC KEY-----\n"


@functools.cache
def hostile_keys() -> dict[str, str]:
    numbers = other_key().public_key().public_numbers()
    curve = ec.generate_private_key(ec.SECP256R1()).public_key()
    return {
        "nothing": "",
        "junk": "junk",
        "half a surrogate pair": "-----BEGIN PUBLIC KEY-----\n\ud800",
        "an empty frame": "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----\n",
        "2048 bits": pem_of((1 << 2047) + 1, 65537),
        "too many bits": pem_of((1 << 8191) + 1, 65537),
        "exponent 1": pem_of(numbers.n, 1),
        "exponent 3": pem_of(numbers.n, 3),
        "an exponent as long as the modulus": pem_of(numbers.n, numbers.n - 2),
        "an even modulus": pem_of(numbers.n + 1, 65537),
        "a private key": other_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
        "a key of another kind": curve.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode(),
        "an OpenSSH key": other_key().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode(),
        "a JSON Web Key": json.dumps({"kty": "RSA", "n": "AQAB", "e": "AQAB"}),
        "too long": public_pem(other_key()).ljust(4097, "\n"),
    }


@pytest.mark.parametrize("name", hostile_keys())
def test_a_key_that_is_weak_slow_broken_or_private_is_malformed(name: str) -> None:
    why = r"^RSA key: this is a private key; send the public one" if name == "a private key" else r"^RSA key: "
    with pytest.raises(Malformed, match=why):
        envelope.load_rsa_public_key(hostile_keys()[name])


@pytest.mark.parametrize("kind", [PublicFormat.SubjectPublicKeyInfo, PublicFormat.PKCS1])
def test_a_public_key_in_either_pem_form_is_read(kind: PublicFormat) -> None:
    key = envelope.load_rsa_public_key(public_pem(other_key(), kind))

    assert isinstance(key.raw_value, RSAPublicKey)
    assert key.raw_value.public_numbers() == other_key().public_key().public_numbers()
    assert not key.is_private


def test_a_key_may_be_as_long_as_its_bound() -> None:
    assert envelope.load_rsa_public_key(public_pem(other_key()).ljust(4096, "\n"))
    assert envelope.load_rsa_public_key(pem_of((1 << 6143) + 1, 65537))


def test_secrets_are_shown_by_nobody() -> None:
    secrets = envelope.Secrets(
        content_key=b"KKKKKKKK" * 4, request_salt=b"SSSSSSSS" * 4, channel_secret=b"CCCCCCCC" * 4
    )

    for shown in (repr(secrets), str(secrets), f"{[secrets]}", rich.pretty.pretty_repr(secrets)):
        assert "Secrets" in shown
        assert not {"KKKK", "SSSS", "CCCC", "4b4b"} & {shown[at : at + 4] for at in range(len(shown))}
