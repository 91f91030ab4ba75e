"""EIP-4361, Sign-In with Ethereum: the text that a wallet shows and signs to say whose account it is.

    parallelix.io wants you to sign in with your Ethereum account:
    0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed

    Sign in to ParalleliX.

    URI: https://parallelix.io/api
    Version: 1
    Chain ID: 1
    Nonce: 0193514ac3f0…
    Issued At: 2026-11-21T15:00:00.000Z
    Expiration Time: 2026-11-21T15:10:00.000Z

Reading is strict: a text is taken only if writing what was read gives the same text, so that what was signed has one
meaning. Stricter than the standard: numbers have no leading zeros, and times have four-digit years and no leap second.
Looser: a statement may hold any printable ASCII, as some wallets' libraries let it. What a message is worth (whose
domain, which nonce, what time it is) is the coordinator's to judge.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

import msgspec

from parallelix.protocol.errors import Malformed
from parallelix.protocol.signing import checksum_address

VERSION = "1"
STATEMENT = "Sign in to ParalleliX."
MESSAGE_CHARACTERS_MAX = 4096
"""Six times the usual; a wallet's screen shows less."""
RESOURCES_MAX = 16

_HEADING = " wants you to sign in with your Ethereum account:"
_SCHEME = r"[a-z][a-z0-9+.-]{0,31}"
_AUTHORITY = r"[A-Za-z0-9._~!$&'()*+,;=:@%\[\]-]{1,255}"
_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:[A-Za-z0-9._~:/?#\[\]@!$&'()*+,;=%-]{1,1000}")
_ORIGIN = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://[^/?#]+")
_DOMAIN = re.compile(rf"(?:({_SCHEME})://)?({_AUTHORITY}){re.escape(_HEADING)}")
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_STATEMENT = re.compile(r"[ -~]{1,1000}")
_VERSION = re.compile(r"0|[1-9][0-9]{0,8}")
_CHAIN_ID = re.compile(r"0|[1-9][0-9]{0,77}")
_NONCE = re.compile(r"[A-Za-z0-9]{8,128}")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?(?:Z|[+-][0-9]{2}:[0-9]{2})")
_REQUEST_ID = re.compile(r"[A-Za-z0-9._~!$&'()*+,;=:@%-]{0,256}")


class SignIn(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of a message. Times are RFC 3339, as they were signed; `None` and empty mean that there is no such
    line. `scheme` is given where the domain has one before it."""

    scheme: str = ""
    domain: str
    address: str
    statement: str = ""
    uri: str
    version: str = VERSION
    chain_id: int
    nonce: str
    issued_at: str
    expiration_time: str = ""
    not_before: str = ""
    request_id: str | None = None
    resources: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """What the wallet signs."""
        scheme = f"{self.scheme}://" if self.scheme else ""
        lines = [f"{scheme}{self.domain}{_HEADING}", self.address, ""]
        lines += [self.statement] if self.statement else []
        lines += ["", f"URI: {self.uri}", f"Version: {self.version}", f"Chain ID: {self.chain_id}",
                  f"Nonce: {self.nonce}", f"Issued At: {self.issued_at}"]  # fmt: skip
        lines += [f"Expiration Time: {self.expiration_time}"] if self.expiration_time else []
        lines += [f"Not Before: {self.not_before}"] if self.not_before else []
        lines += [f"Request ID: {self.request_id}"] if self.request_id is not None else []
        if self.resources is not None:
            lines += ["Resources:", *(f"- {each}" for each in self.resources)]
        return "\n".join(lines)


def parse(text: str) -> SignIn:
    """Raises `Malformed` that names the line at fault."""
    if len(text) > MESSAGE_CHARACTERS_MAX:
        raise Malformed(f"sign-in message: {len(text)} characters, at most {MESSAGE_CHARACTERS_MAX}")
    lines = _Lines(text)
    heading = lines.take(_DOMAIN, f"the first line: [scheme://]domain{_HEADING}")
    address = lines.take(_ADDRESS, "the account's address")[0]
    if address != checksum_address(bytes.fromhex(address[2:])):
        raise Malformed(f"sign-in message: line 2: {address} has no EIP-55 checksum; give the address in mixed case")
    lines.blank()
    statement = lines.maybe(_STATEMENT)
    lines.blank()
    message = SignIn(
        scheme=heading[1] or "",
        domain=heading[2],
        address=address,
        statement=statement or "",
        uri=lines.field("URI", _URI),
        version=lines.field("Version", _VERSION),
        chain_id=int(lines.field("Chain ID", _CHAIN_ID)),
        nonce=lines.field("Nonce", _NONCE),
        issued_at=lines.time("Issued At"),
        expiration_time=lines.time("Expiration Time") if lines.has("Expiration Time: ") else "",
        not_before=lines.time("Not Before") if lines.has("Not Before: ") else "",
        request_id=lines.field("Request ID", _REQUEST_ID) if lines.has("Request ID: ") else None,
        resources=lines.resources() if lines.has("Resources:") else None,
    )
    lines.end()
    assert message.text == text, "what was read is not what was written"
    return message


def time_text(unix_ms: int) -> str:
    """RFC 3339 in UTC, to the millisecond."""
    return datetime.fromtimestamp(unix_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def unix_ms_of(text: str) -> int:
    """Unix milliseconds of a time that was read from a message. Raises `Malformed` for one that is in no calendar."""
    try:
        return round(datetime.fromisoformat(text).timestamp() * 1000)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"sign-in message: {text[:40]} is no date and time of RFC 3339") from error


def origin_of(uri: str) -> str:
    """Scheme and authority in lower case, such as https://parallelix.io; empty for a URI without them."""
    found = _ORIGIN.match(uri)
    return found[0].lower() if found is not None else ""


class _Lines:
    def __init__(self, text: str) -> None:
        self._lines = text.split("\n")
        self._next = 0

    def take(self, pattern: re.Pattern[str], what: str) -> re.Match[str]:
        found = pattern.fullmatch(self._line)
        if found is None:
            raise self._malformed(f"expected {what}")
        self._next += 1
        return found

    def maybe(self, pattern: re.Pattern[str]) -> str | None:
        found = pattern.fullmatch(self._line)
        self._next += found is not None
        return found[0] if found is not None else None

    def blank(self) -> None:
        if self._next >= len(self._lines) or self._line:
            raise self._malformed("expected an empty line")
        self._next += 1

    def has(self, start: str) -> bool:
        return self._line.startswith(start)

    def field(self, name: str, pattern: re.Pattern[str]) -> str:
        start = f"{name}: "
        if not self.has(start) or pattern.fullmatch(self._line[len(start) :]) is None:
            raise self._malformed(f"expected '{start}' and a value of that kind")
        self._next += 1
        return self._lines[self._next - 1][len(start) :]

    def time(self, name: str) -> str:
        text = self.field(name, _TIME)
        unix_ms_of(text)
        return text

    def resources(self) -> tuple[str, ...]:
        if self._line != "Resources:":
            raise self._malformed("expected 'Resources:' alone")
        self._next += 1
        found: list[str] = []
        while self.has("- ") and len(found) < RESOURCES_MAX:
            if _URI.fullmatch(self._line[2:]) is None:
                raise self._malformed("expected '- ' and a URI")
            found.append(self._line[2:])
            self._next += 1
        return tuple(found)

    def end(self) -> None:
        if self._next < len(self._lines):
            raise self._malformed(f"expected the end, or a line that may come here; at most {RESOURCES_MAX} resources")

    @property
    def _line(self) -> str:
        return self._lines[self._next] if self._next < len(self._lines) else ""

    def _malformed(self, reason: str) -> Malformed:
        # Without the line itself: it may be anything, and reasons go into answers and logs.
        return Malformed(f"sign-in message: line {self._next + 1}: {reason}")
