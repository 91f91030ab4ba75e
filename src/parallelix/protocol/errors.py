"""Everything that a message from outside can get wrong, by the stable code that travels with it.

ProtocolError
├── Malformed               the bytes are not the message they claim to be
├── BadSignature            not signed by the key that must sign it, or in a form we refuse
└── BadEnvelope             sealed to another key, attempt or unit, or altered
"""

from __future__ import annotations


class ProtocolError(Exception):
    """A message that must be refused. `code` is stable and is what the other side sees."""

    code = "protocol_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class Malformed(ProtocolError):
    code = "malformed"


class BadSignature(ProtocolError):
    code = "bad_signature"


class BadEnvelope(ProtocolError):
    code = "bad_envelope"
