"""What the shell keeps of an open request and of an open attempt: keys, sealed bytes, and the requester's feed.

The engine knows the facts, this knows the secrets. It goes when the request ends; after a restart it is rebuilt from
what the store holds wrapped.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from joserfc.jwk import RSAKey

from parallelix.coordinator.feed import Feed
from parallelix.engine.entities import Request
from parallelix.protocol import envelope
from parallelix.protocol.envelope import Opener

KEYS_BYTES = 2 * envelope.KEY_BYTES


@dataclass(slots=True, kw_only=True)
class LiveRequest:
    request: Request
    content_key: bytes
    salt: bytes
    sealed_payload: bytes
    payload_text: str
    """The sealed payload in base64url, as it goes into an inbox."""
    payload_sha256: str
    input_hash: bytes
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
