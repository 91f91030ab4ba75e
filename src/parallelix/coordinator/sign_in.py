"""What a wallet's sign-in is worth: whether it is for this coordinator, for now, and for the first time.

A nonce is made by HMAC over the time and chance, so that handing one out keeps nothing: no flood of callers fills a
memory, and a restart or a second process with the same storage key knows it again. That it is used at most once rests
on the store: the session that a nonce opens is named after it, so the row that makes the session durable is the row
that makes the nonce used. There is no moment between the two. The row stays as long as the session, which is longer
than a nonce is taken.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass

import msgspec

from parallelix.coordinator.errors import MalformedSignIn, SignInRefused
from parallelix.protocol import sign_in
from parallelix.protocol.errors import BadSignature, Malformed
from parallelix.protocol.sign_in import SignIn
from parallelix.protocol.signing import checksum_address, public_key_hash, recover_public_key

NONCE_SECONDS = 600
"""Time to read a message, find a hardware wallet and confirm on it."""
SKEW_SECONDS = 60
"""By how much the clock that wrote the message may differ from ours."""

_TIME_BYTES, _CHANCE_BYTES, _TAG_BYTES = 6, 16, 16
_NONCE = re.compile(rf"[0-9a-f]{{{2 * (_TIME_BYTES + _CHANCE_BYTES + _TAG_BYTES)}}}")
_LOOPBACK = ("127.0.0.1", "[::1]")


class Nonces:
    """`key` is a secret that every process of this coordinator derives alike."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def make(self, now: int) -> str:
        body = now.to_bytes(_TIME_BYTES, "big") + secrets.token_bytes(_CHANCE_BYTES)
        return (body + self._tag(body)).hex()

    def made_at(self, nonce: str) -> int:
        """Unix milliseconds. Raises `SignInRefused` for a nonce that was not made with this key."""
        if _NONCE.fullmatch(nonce) is not None:
            whole = bytes.fromhex(nonce)
            body, tag = whole[:-_TAG_BYTES], whole[-_TAG_BYTES:]
            if hmac.compare_digest(tag, self._tag(body)):
                return int.from_bytes(body[:_TIME_BYTES], "big")
        raise SignInRefused(
            "nonce: was not made by this coordinator; ask for one at /v1/auth/nonce, and sign in with it",
            code="unknown_nonce",
        )

    def _tag(self, body: bytes) -> bytes:
        return hmac.digest(self._key, body, "sha256")[:_TAG_BYTES]


def session_id(nonce: str) -> str:
    return f"ses_{hashlib.sha256(nonce.encode()).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where wallets may sign in: `origins` such as https://parallelix.io, and the `uri` that a message should name."""

    origins: tuple[str, ...]
    uri: str

    @property
    def domain(self) -> str:
        return self.uri.partition("://")[2].partition("/")[0]


def place_of(public_url: str, server: tuple[str, int | None] | None, host: str) -> Place:
    """The configured URL; without one, the address that the call itself came in at, and `localhost` for this machine.

    `host` is the call's own header: it only picks among addresses that are ours anyway, for whoever relays a sign-in
    writes that header."""
    if public_url:
        return Place(origins=(sign_in.origin_of(public_url),), uri=public_url.rstrip("/"))
    name, port = server or ("127.0.0.1", 0)
    name = f"[{name}]" if ":" in name else name
    names = (name, "localhost") if name in _LOOPBACK else (name,)
    origins = tuple(f"http://{each}:{port}" for each in names)
    chosen = f"http://{host.lower()}"
    return Place(origins=origins, uri=chosen if chosen in origins else origins[0])


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """A message that may be believed once its signature is found good."""

    message: SignIn
    session_id: str


def check(text: str, *, place: Place, chain_id: int, nonces: Nonces, now: int) -> Checked:
    """All but signature and use. Raises `MalformedSignIn` or `SignInRefused`."""
    try:
        message = sign_in.parse(text)
    except Malformed as error:
        raise MalformedSignIn(error.message, param="message") from error
    _require_ours(message, place, chain_id)
    _require_timely(message, made_at=nonces.made_at(message.nonce), now=now)
    return Checked(message=message, session_id=session_id(message.nonce))


def _require_ours(message: SignIn, place: Place, chain_id: int) -> None:
    ours = [each for each in place.origins if each.partition("://")[2] == message.domain.lower()]
    if not ours:
        raise _foreign("domain", message.domain, place.domain)
    if message.scheme and message.scheme != ours[0].partition("://")[0]:
        raise _foreign("scheme", message.scheme, ours[0])
    if sign_in.origin_of(message.uri) != ours[0]:
        raise _foreign("URI", message.uri, place.uri)
    if message.version != sign_in.VERSION:
        raise _foreign("Version", message.version, sign_in.VERSION)
    if message.chain_id != chain_id:
        raise _foreign("Chain ID", str(message.chain_id), str(chain_id))


def _foreign(line: str, found: str, wanted: str) -> SignInRefused:
    return SignInRefused(
        f"{line}: the wallet signed in to {found[:80]!r}, this is {wanted!r}; sign in here, and nowhere that asks you "
        "to sign in to another place",
        code="foreign_sign_in",
    )


def _require_timely(message: SignIn, *, made_at: int, now: int) -> None:
    issued_at = sign_in.unix_ms_of(message.issued_at)
    if not made_at - SKEW_SECONDS * 1000 <= now < made_at + NONCE_SECONDS * 1000:
        raise _stale(f"its nonce was made at {sign_in.time_text(made_at)} and holds for {NONCE_SECONDS} seconds")
    if not made_at - SKEW_SECONDS * 1000 <= issued_at <= now + SKEW_SECONDS * 1000:
        raise _stale(
            f"Issued At is {message.issued_at}, expected from {sign_in.time_text(made_at)}, when its nonce was made, "
            f"to {sign_in.time_text(now)}; set the clock right"
        )
    if message.expiration_time and sign_in.unix_ms_of(message.expiration_time) <= now:
        raise _stale(f"it expired at {message.expiration_time}, and it is {sign_in.time_text(now)}")
    if message.not_before and sign_in.unix_ms_of(message.not_before) > now:
        raise _stale(f"it holds from {message.not_before}, and it is {sign_in.time_text(now)}")


def _stale(reason: str) -> SignInRefused:
    return SignInRefused(f"the sign-in does not hold now: {reason}; sign in anew", code="stale_sign_in")


def require_signer(message: SignIn, signature: bytes) -> None:
    """Raises `SignInRefused` unless the message's address made the signature by personal_sign (EIP-191)."""
    try:
        public_key = recover_public_key(message.text, signature)
    except BadSignature as error:
        raise SignInRefused(error.message, code="wrong_signer", param="signature") from error
    signer = checksum_address(public_key_hash(public_key)[12:])
    if signer != message.address:
        raise SignInRefused(
            f"signature: made by {signer}, the message names {message.address}; sign with that account",
            code="wrong_signer",
            param="signature",
        )
