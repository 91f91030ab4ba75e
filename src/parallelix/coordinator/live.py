"""What the shell keeps of an open request and of an open attempt: keys, sealed bytes, and the requester's feed.

The engine knows the facts, this knows the secrets. It goes when the request ends; after a restart it is rebuilt from
what the store holds wrapped.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

from joserfc.jwk import RSAKey

from parallelix.coordinator.feed import Feed
from parallelix.engine.entities import Request
from parallelix.protocol import envelope, work
from parallelix.protocol.encoding import to_base64url
from parallelix.protocol.envelope import Opener

KEYS_BYTES = 2 * envelope.KEY_BYTES


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePayload:
    """A unit's payload, sealed once for all of its attempts."""

    content_key: bytes
    salt: bytes
    sealed: bytes
    text: str
    """`sealed` in base64url, as it goes into an inbox."""
    sha256: str
    input_hash: bytes

    @classmethod
    def seal(cls, unit_id: str, plaintext: bytes, random_bytes: Callable[[int], bytes]) -> Self:
        """Under fresh keys."""
        content_key, salt = random_bytes(envelope.KEY_BYTES), random_bytes(envelope.KEY_BYTES)
        sealed = envelope.seal_payload(
            plaintext, unit_id=unit_id, content_key=content_key, nonce=random_bytes(envelope.NONCE_BYTES)
        )
        return cls._of(plaintext, content_key=content_key, salt=salt, sealed=sealed)

    @classmethod
    def stored(cls, unit_id: str, sealed: bytes, *, content_key: bytes, salt: bytes) -> Self:
        plaintext = envelope.open_payload(sealed, unit_id=unit_id, content_key=content_key)
        return cls._of(plaintext, content_key=content_key, salt=salt, sealed=sealed)

    @classmethod
    def _of(cls, plaintext: bytes, *, content_key: bytes, salt: bytes, sealed: bytes) -> Self:
        return cls(
            content_key=content_key,
            salt=salt,
            sealed=sealed,
            text=to_base64url(sealed),
            sha256=envelope.payload_digest(sealed),
            input_hash=work.input_hash(salt, plaintext),
        )


@dataclass(slots=True, kw_only=True)
class LiveRequest:
    request: Request
    payload: LivePayload
    requester_key: RSAKey | None
    feed: Feed = field(default_factory=Feed)

    @property
    def request_id(self) -> str:
        return self.request.request_id

    @property
    def streams(self) -> bool:
        """Text sealed to the requester's own key is never shown on the way."""
        return self.requester_key is None


@dataclass(slots=True, kw_only=True)
class LiveAttempt:
    """`received_bytes` is the length of the text that arrived in deltas; `connection` the newest stream's number."""

    attempt_id: str
    request_id: str
    number: int
    node_id: int
    model_digest: str
    channel_secret: bytes
    connection: int = -1
    received_bytes: int = 0
    received_entries: int = 0
    arrived_bytes: int = 0
    """Of sealed deltas, over all its streams."""
    last_time: dict[str, int] = field(default_factory=dict[str, int])

    def opener(self, label: envelope.ChannelLabel, connection: int = 0) -> Opener:
        return Opener(self.channel_secret, label=label, attempt_id=self.attempt_id, connection=connection)


@dataclass(slots=True, kw_only=True)
class LiveSession:
    """A node's keys, parsed once for each session, and the last time that each purpose was signed for."""

    node_id: int
    session: str
    public_key: bytes
    envelope_key: RSAKey
    envelope_key_id: str
    poe_key: RSAKey
    last_time: dict[str, int] = field(default_factory=dict[str, int])
