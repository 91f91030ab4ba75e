"""One way to turn a structure into bytes, so that two sides hash the same.

The rule: RFC 8785 (JSON Canonicalization Scheme), without fractions. Keys are ASCII and sorted, strings are UTF-8 as
they came (never normalised) with the shortest escapes, integers lie within ±(2^53 − 1), there is no white space.
Numbers that may hold a fraction or exceed 2^53 travel as decimal strings. Each Struct says which fields are always
there and which are left out at their default. `tests/vectors/canonical.json` holds examples for other languages.

Reading is strict: `decode` refuses bytes that are not already in canonical form, so one meaning has one hash.
"""

from __future__ import annotations

import hashlib
import re
from typing import Annotated, TypeAlias, TypeVar

import msgspec
from msgspec import Meta

from parallelix.protocol.errors import Malformed

T = TypeVar("T")

INTEGER_MAX = 2**53 - 1

Integer: TypeAlias = Annotated[int, Meta(ge=-INTEGER_MAX, le=INTEGER_MAX)]
"""Every integer of a canonical Struct is one of these two: beyond them, readers that keep numbers as doubles would
hash something else."""
Count: TypeAlias = Annotated[int, Meta(ge=0, le=INTEGER_MAX)]

_QUOTED = re.compile(r"(value|unknown field) ['\"`0-9-].*?( - at `\$[^`]*`)?$", re.DOTALL)
_REASON_CHARACTERS_MAX = 200
"""A parser quotes what it refused; a message must not carry a megabyte of somebody's text into a log."""


def encode(value: msgspec.Struct) -> bytes:
    """The canonical bytes of a Struct without float fields."""
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, kind: type[T]) -> T:
    """The Struct whose canonical bytes these are. Raises `Malformed` for anything else, a mere space included."""
    value = decode_json(data, kind)
    if msgspec.json.encode(value, order="sorted") != data:
        raise Malformed(f"{kind.__name__}: the bytes are valid JSON but not in canonical form (RFC 8785)")
    return value


def decode_json(data: bytes | str, kind: type[T]) -> T:
    """Reads JSON of a known shape; unknown fields are ignored. Raises `Malformed` with the place of the fault."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError as error:
        raise Malformed(f"{kind.__name__}: {_unquoted(str(error))[:_REASON_CHARACTERS_MAX]}") from None
    except (msgspec.DecodeError, UnicodeError) as error:
        raise Malformed(f"{kind.__name__}: not valid JSON ({str(error)[:_REASON_CHARACTERS_MAX]})") from error
    except RecursionError as error:
        raise Malformed(f"{kind.__name__}: nested deeper than a message may be") from error


def _unquoted(reason: str) -> str:
    """A reason without the value that it quotes: that may be somebody's prompt or answer, and reasons go into logs."""
    return _QUOTED.sub(r"\1 that is not shown here\2", reason)


def domain_hash(domain: str, *parts: bytes) -> bytes:
    """SHA-256 over a domain tag and parts, each led by its length as eight big-endian bytes, so that no two different
    lists of parts hash alike."""
    digest = hashlib.sha256()
    for part in (domain.encode(), *parts):
        digest.update(len(part).to_bytes(8, "big"))
        digest.update(part)
    return digest.digest()
