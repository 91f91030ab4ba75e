"""The deployment file: what was asked for, what stands where, and the one transaction that is on its way.

A transaction is noted, signed and with the address that it will create, before it is sent. So after a crash at any
point the next run finds what became of it, and nothing is ever deployed twice. The file holds nothing secret.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from eth_utils.address import is_checksum_address, is_hex_address, to_checksum_address
from msgspec import Meta

from parallelix.chain.abi import Address
from parallelix.chain.errors import DeploymentRefused
from parallelix.chain.wallet import ATTEMPTS_MAX, Signed
from parallelix.private_files import sync_folder

FILE_BYTES_MAX = 1024 * 1024
"""A finished file has 20 KiB; one with a signed contract creation on its way 100."""
TOKEN = 10**18
SUPPLY = 100_000_000 * TOKEN
Wei = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]{0,77})$")]
ROLES = ("owner", "validator", "liveness", "settler", "guardian", "treasury", "infrastructure")


class Parameters(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a deployment is made with; the constants are those of the public network. Amounts are wei in decimal.

    Without a `lockup` there is no bootstrap stream, and the rewards contract lives on usage income alone.
    """

    owner: Address
    validator: Address
    liveness: Address
    settler: Address
    guardian: Address
    treasury: Address
    infrastructure: Address
    lockup: Address = ""
    withdrawal_delay_seconds: int = 86_400
    default_daily_limit: Wei = str(10_000 * TOKEN)
    bootstrap_amount: Wei = str(25_000_000 * TOKEN)
    bootstrap_seconds: int = 731 * 86_400
    multipliers_tenths: tuple[int, int, int, int] = (10, 20, 25, 30)
    stale_seconds: int = 21_600


class ContractEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One deployed contract. Hashes are hex."""

    address: Address
    block_number: int
    transaction_hash: str
    abi_sha256: str


class StepEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One step that is done. A step that was found done, without a transaction of ours, has an empty hash."""

    name: str
    transaction_hash: str
    block_number: int
    gas_used: int


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """A transaction that may have been sent. All attempts have its nonce, so at most one of them is ever mined.

    `contract` is the address that it creates, empty for a call.
    """

    name: str
    nonce: int
    contract: Address
    attempts: Annotated[tuple[Signed, ...], Meta(min_length=1, max_length=ATTEMPTS_MAX)]


class Deployment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A whole deployment, finished when `complete`."""

    version: Literal[1] = 1
    chain_id: int
    deployer: Address
    parameters: Parameters
    contracts: dict[str, ContractEntry] = {}
    stream_id: int | None = None
    steps: tuple[StepEntry, ...] = ()
    pending: Pending | None = None
    complete: bool = False

    def address(self, contract: str) -> Address:
        """Raises `DeploymentRefused` for a contract that is not deployed yet."""
        entry = self.contracts.get(contract)
        if entry is None:
            raise DeploymentRefused(f"{contract} is not deployed yet; run the same `chain deploy` again")
        return entry.address

    @property
    def first_block(self) -> int:
        """Where an indexer begins."""
        return min((entry.block_number for entry in self.contracts.values()), default=0)


def checked(parameters: Parameters) -> Parameters:
    """With checksummed addresses. Raises `DeploymentRefused` for what a contract or common sense would refuse."""
    addresses = {role: address_of(getattr(parameters, role), name=role) for role in ROLES}
    lockup = address_of(parameters.lockup, name="lockup") if parameters.lockup else ""
    for name, value, least, most in (
        ("withdrawal_delay_seconds", parameters.withdrawal_delay_seconds, 1, 86_400),
        ("bootstrap_amount", int(parameters.bootstrap_amount), 1, SUPPLY),
        ("bootstrap_seconds", parameters.bootstrap_seconds, 1, 2**32 - 1),
        ("stale_seconds", parameters.stale_seconds, 1, 86_400),
        ("default_daily_limit", int(parameters.default_daily_limit), 0, SUPPLY),
        *((f"multipliers_tenths[{at}]", each, 1, 100) for at, each in enumerate(parameters.multipliers_tenths)),
    ):
        if not least <= value <= most:
            raise DeploymentRefused(f"{name}: {value}, expected {least} to {most}")
    return msgspec.structs.replace(parameters, lockup=lockup, **addresses)


def address_of(text: str, *, name: str) -> Address:
    """Checksummed. Raises `DeploymentRefused` for anything but an account's address; mixed case is a checksum."""
    if not is_hex_address(text) or not text.startswith("0x"):
        raise DeploymentRefused(f"{name}: {text[:60]!r} is no address; give 0x and 40 hex digits")
    if int(text, 16) == 0:
        raise DeploymentRefused(f"{name}: the zero address, which nobody has; give the address of an account")
    if text[2:] not in (text[2:].lower(), text[2:].upper()) and not is_checksum_address(text):
        raise DeploymentRefused(f"{name}: {text} has a wrong checksum, so a digit is wrong; copy the address again")
    return to_checksum_address(text)


def read(path: Path) -> Deployment | None:
    """None where there is no file. Raises `DeploymentRefused` for one that is no deployment file."""
    try:
        with path.open("rb") as file:
            data = file.read(FILE_BYTES_MAX + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise DeploymentRefused(f"{path}: cannot be read ({error.strerror}); choose another file") from error
    if len(data) > FILE_BYTES_MAX:
        raise DeploymentRefused(f"{path}: more than {FILE_BYTES_MAX} bytes; it is no deployment file")
    try:
        return msgspec.json.decode(data, type=Deployment)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise DeploymentRefused(f"{path}: no deployment file ({error}); choose another file") from error


def write(path: Path, deployment: Deployment) -> None:
    """Whole or not at all, through to the disk: what follows may be a transaction that cannot be taken back."""
    data = msgspec.json.format(msgspec.json.encode(deployment), indent=2) + b"\n"
    assert len(data) <= FILE_BYTES_MAX, len(data)
    temporary = path.with_name(f".{path.name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        raise DeploymentRefused(f"{path}: cannot be written ({error.strerror}); choose another file") from error


@contextmanager
def locked(path: Path) -> Generator[None]:
    """One run at a time: two would send the same nonce. Raises `DeploymentRefused`."""
    lock = path.with_name(f".{path.name}.lock")
    try:
        file = lock.open("wb")
    except OSError as error:
        raise DeploymentRefused(f"{path}: its folder cannot be written to ({error.strerror})") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DeploymentRefused(f"{path}: another run works on it; wait until it has ended") from error
        yield
