"""The bodies by which a requester signs in with its wallet, makes API keys, and takes credits out.

Amounts are decimal strings in wei, times Unix milliseconds unless they say otherwise.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias, get_args

import msgspec
from msgspec import Meta

from parallelix.protocol.canonical import Count
from parallelix.protocol.encoding import whole
from parallelix.protocol.requests import KeyView
from parallelix.protocol.sign_in import MESSAGE_CHARACTERS_MAX

Scope: TypeAlias = Literal["inference", "read", "keys", "withdraw"]
"""What a key may do: create and cancel requests; look at requests, receipts, credits and keys; make and revoke keys;
ask for a clearance, which pays to nobody but the account itself."""
SCOPES: tuple[Scope, ...] = get_args(Scope)
KEY_SCOPES: tuple[Scope, ...] = ("inference", "read")
SESSION_SCOPES: tuple[Scope, ...] = ("read", "keys", "withdraw")

NAME_CHARACTERS_MAX = 128
LIMIT_MAX = 1_000_000
SIGNATURE_HEX_MAX = 2 * 4096
"""A key's signature has 65 bytes. A contract's is as long as it wants; those of ten owners are below 1 KiB."""

Wei: TypeAlias = Annotated[str, whole("0|[1-9][0-9]{0,30}")]
KeyName: TypeAlias = Annotated[str, Meta(max_length=NAME_CHARACTERS_MAX)]
Limit: TypeAlias = Annotated[int, Meta(ge=0, le=LIMIT_MAX)]


class NonceView(msgspec.Struct, frozen=True, kw_only=True):
    """`POST /v1/auth/nonce`: what to put into the message. Times are RFC 3339, as the message has them."""

    nonce: str
    domain: str
    uri: str
    version: str
    chain_id: int
    issued_at: str
    expiration_time: str


class SignInBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/auth/sign-in`: an EIP-4361 message and the wallet's signature over it (personal_sign), 0x-hex."""

    message: Annotated[str, Meta(min_length=1, max_length=MESSAGE_CHARACTERS_MAX)]
    signature: Annotated[str, whole(f"0x(?:[0-9a-fA-F]{{2}}){{1,{SIGNATURE_HEX_MAX // 2}}}")]


class SessionView(msgspec.Struct, frozen=True, kw_only=True):
    """`token` is shown this once; it is sent like an API key, until `expires_at`."""

    token: str
    id: str
    account: str
    scopes: tuple[Scope, ...]
    expires_at: int


class NewKeyBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/keys`. Limits of 0 mean none; `expires_at` null means never."""

    name: KeyName = ""
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1, max_length=len(SCOPES))] = KEY_SCOPES
    requests_per_minute: Limit = 0
    concurrency: Limit = 0
    budget_wei: Wei = "0"
    expires_at: Count | None = None


class NewKeyView(msgspec.Struct, frozen=True, kw_only=True):
    """`api_key` is shown this once: only its hash is stored."""

    api_key: str
    id: str
    account: str
    key: KeyView


class ClearanceBody(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`POST /v1/account/clearance`: how much of the deposit is to be withdrawn at once."""

    amount_wei: Annotated[str, whole("[1-9][0-9]{0,30}")]


class ClearanceView(msgspec.Struct, frozen=True, kw_only=True):
    """The settler's clearance (EIP-712), with all that `withdrawWithClearance` of the vault takes. `expiry` is Unix
    seconds, `r` and `s` are 0x-hex of 32 bytes. Until it is used or past, the amount cannot be spent."""

    vault: str
    chain_id: int
    account: str
    amount_wei: str
    cumulative_spent_wei: str
    nonce: int
    expiry: int
    v: int
    r: str
    s: str
