"""Sablier's Lockup, which streams the bootstrap rewards: what it takes to deploy one, and to open the stream.

Live networks have a Lockup already. Tests and local networks deploy Sablier's own compiled contracts, which are under
BUSL-1.1 and therefore read from a folder that the caller names, never shipped. Nothing here signs or sends.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallelix.chain.abi import Address, Function, encode

ZERO_ADDRESS = "0x" + 20 * "00"

INITIALIZE = Function("initialize", ("address", "uint256", "uint256", "uint256", "uint256", "address"))
_PARAMETERS = "(address,address,uint128,address,bool,bool,(uint40,uint40),string)"
CREATE_LINEAR = Function("createWithTimestampsLL", (_PARAMETERS, "(uint128,uint128)", "uint40", "uint40"), ("uint256",))
"""In the ABI of Lockup 4.0: parameters, unlock amounts at start and cliff, granularity, cliff time."""
NEXT_STREAM_ID = Function("nextStreamId", (), ("uint256",))
WITHDRAW_MAX = Function("withdrawMax", ("uint256", "address"), ("uint128",))
WITHDRAWABLE_AMOUNT_OF = Function("withdrawableAmountOf", ("uint256",), ("uint128",))


@dataclass(frozen=True, kw_only=True)
class Code:
    """Creation bytecode with the places where addresses of libraries belong."""

    text: str
    """Hexadecimal, with placeholders that are not."""
    places: Mapping[str, tuple[int, ...]]
    """By library: the offsets, in bytes, of the 20 bytes of its address."""

    def linked(self, libraries: Mapping[str, Address]) -> bytes:
        """Raises `KeyError` for a library that is not given."""
        text = self.text
        for library, offsets in self.places.items():
            address = libraries[library].removeprefix("0x").lower()
            for offset in offsets:
                text = text[: 2 * offset] + address + text[2 * offset + 40 :]
        return bytes.fromhex(text)


@dataclass(frozen=True, kw_only=True)
class Packages:
    """The compiled contracts of `@sablier/lockup` and `@sablier/evm-utils`."""

    comptroller: Code
    proxy: Code
    helpers: Code
    mathematics: Code
    descriptor: Code
    lockup: Code
    lockup_abi: list[dict[str, Any]]
    comptroller_abi: list[dict[str, Any]]


@dataclass(frozen=True, kw_only=True)
class Deployed:
    comptroller: Address
    lockup: Address


def read_packages(folder: Path) -> Packages:
    """From the unpacked npm packages in `folder/lockup` and `folder/evm-utils`. Raises `OSError` when they are not."""
    lockup, utilities = folder / "lockup" / "artifacts", folder / "evm-utils" / "artifacts"
    return Packages(
        comptroller=_code(utilities / "SablierComptroller.json"),
        proxy=_code(utilities / "ERC1967Proxy.json"),
        helpers=_code(lockup / "libraries" / "LockupHelpers.json"),
        mathematics=_code(lockup / "libraries" / "LockupMath.json"),
        descriptor=_code(lockup / "LockupNFTDescriptor.json"),
        lockup=_code(lockup / "SablierLockup.json"),
        lockup_abi=json.loads((lockup / "SablierLockup.json").read_bytes())["abi"],
        comptroller_abi=json.loads((utilities / "SablierComptroller.json").read_bytes())["abi"],
    )


def _code(file: Path) -> Code:
    bytecode = json.loads(file.read_bytes())["bytecode"]
    references: dict[str, dict[str, list[dict[str, int]]]] = bytecode.get("linkReferences", {})
    places = {
        library: tuple(place["start"] for place in found)
        for by_library in references.values()
        for library, found in by_library.items()
    }
    return Code(text=bytecode["object"].removeprefix("0x"), places=places)


def deploy(
    packages: Packages,
    create: Callable[[bytes], Address],
    *,
    admin: Address,
    minimum_fee_usd: int = 0,
    oracle: Address = ZERO_ADDRESS,
) -> Deployed:
    """Deploy a Lockup and all it needs. `create` sends creation bytecode and returns the address of what it made.

    `minimum_fee_usd` has 8 decimals, as Chainlink's prices have; without an oracle no fee is ever asked.
    """
    implementation = create(packages.comptroller.linked({}) + encode(["address"], [admin], what="comptroller"))
    start = INITIALIZE.encode([admin, 0, 0, 0, minimum_fee_usd, oracle])
    proxied = encode(["address", "bytes"], [implementation, start], what="comptroller proxy")
    comptroller = create(packages.proxy.linked({}) + proxied)
    libraries = {
        "LockupHelpers": create(packages.helpers.linked({})),
        "LockupMath": create(packages.mathematics.linked({})),
    }
    descriptor = create(packages.descriptor.linked({}))
    arguments = encode(["address", "address"], [comptroller, descriptor], what="lockup")
    return Deployed(comptroller=comptroller, lockup=create(packages.lockup.linked(libraries) + arguments))


def linear_stream(
    *, sender: Address, recipient: Address, token: Address, amount_wei: int, start: int, end: int
) -> bytes:
    """The call that opens a stream, second by second from `start` to `end` (Unix), that nobody can cancel or move.

    The Lockup must be allowed to take `amount_wei` of `token` from the caller. It answers with the stream's id.
    """
    parameters = (sender, recipient, amount_wei, token, False, False, (start, end), "linear")
    return CREATE_LINEAR.encode([parameters, (0, 0), 0, 0])
