# SPDX-License-Identifier: AGPL-3.0-only
"""The compiled ParalleliX contracts, as `make contracts` wrote them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

__all__ = ["CONTRACTS", "Artifact", "artifact"]

CONTRACTS = ("PRLX", "NodeRegistryLocker", "OperatorStakeRewardsV2", "CreditVault", "ExecutionAnchor")


@dataclass(frozen=True, kw_only=True)
class Artifact:
    """What one contract compiles to, and from what."""

    name: str
    compiler_version: str
    evm_version: str
    abi: Sequence[Mapping[str, Any]]
    abi_sha256: str
    """Of the ABI as JSON with sorted keys and without spaces."""
    creation_bytecode: bytes
    """What a deployment sends, followed by the constructor's arguments."""
    runtime_bytecode: bytes
    """What then stands at the address, followed by the immutables."""
    storage_layout: Mapping[str, Any]
    source_sha256: Mapping[str, str]
    """Of each file that was compiled, ours and snekmate's."""


@functools.cache
def artifact(name: str) -> Artifact:
    """The artifact of contract `name`. Raises `LookupError` for a name outside `CONTRACTS`."""
    if name not in CONTRACTS:
        raise LookupError(f"no contract is called {name!r}: choose one of {', '.join(CONTRACTS)}")
    stored = json.loads((files(__name__) / "artifacts" / f"{name}.json").read_text(encoding="utf-8"))
    return Artifact(
        name=stored["contract_name"],
        compiler_version=stored["compiler_version"],
        evm_version=stored["evm_version"],
        abi=stored["abi"],
        abi_sha256=stored["abi_sha256"],
        creation_bytecode=bytes.fromhex(stored["creation_bytecode"].removeprefix("0x")),
        runtime_bytecode=bytes.fromhex(stored["runtime_bytecode"].removeprefix("0x")),
        storage_layout=stored["storage_layout"],
        source_sha256=stored["source_sha256"],
    )
