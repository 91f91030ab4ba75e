# SPDX-License-Identifier: AGPL-3.0-only
"""Compile the contracts and write their artifacts, the same bytes on every machine.

    python contracts/compile.py            write artifacts/<Name>.json for each contract in sources/
    python contracts/compile.py --check    write nothing; exit 1 and name each artifact that does not match its source

A `.vy` file whose name begins with a capital is a contract; the others are modules that contracts share.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import hashlib
import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

PACKAGE = Path(__file__).resolve().parent / "src" / "parallelix_contracts"

COMPILER_VERSION = "0.4.3"
# The newest set of opcodes that every chain in question runs; a later one would change no byte of these contracts.
EVM_VERSION = "cancun"
# A contract that compiles takes two seconds.
COMPILE_SECONDS_MAX = 120
PROCESSES = 2


class CompileError(Exception):
    """The compiler is another one, or refuses a source; the message holds what it said."""


def contract_files(sources: Path) -> list[Path]:
    return sorted(path for path in sources.glob("*.vy") if path.stem[0].isupper())


def compiled(source: Path) -> str:
    """The artifact of one contract, as the text of its file. Raises `CompileError`."""
    abi, creation, runtime, layout = vyper(source, "abi,bytecode,bytecode_runtime,layout").splitlines()
    artifact = {
        "contract_name": source.stem,
        "compiler_version": COMPILER_VERSION,
        "evm_version": EVM_VERSION,
        "abi": json.loads(abi),
        "abi_sha256": abi_sha256(json.loads(abi)),
        "creation_bytecode": creation,
        "runtime_bytecode": runtime,
        "storage_layout": json.loads(layout),
        "source_sha256": source_hashes(source),
    }
    return json.dumps(artifact, indent=1, ensure_ascii=False) + "\n"


def abi_sha256(abi: Sequence[Mapping[str, Any]]) -> str:
    return hashlib.sha256(json.dumps(abi, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def source_hashes(source: Path) -> dict[str, str]:
    """The hash of every file that goes into the contract, by its path among our sources or in its distribution."""
    bundled: dict[str, dict[str, str]] = json.loads(vyper(source, "solc_json"))["sources"]
    named = {
        path.rpartition("site-packages/")[2]: hashlib.sha256(file["content"].encode()).hexdigest()
        for path, file in bundled.items()
    }
    return dict(sorted(named.items()))


def vyper(source: Path, outputs: str) -> str:
    """What the compiler prints for `source`. From the folder of sources, so that no path of this machine gets in."""
    command = [sys.executable, "-m", "vyper", "--evm-version", EVM_VERSION, "-p", ".", "-f", outputs, source.name]
    done = subprocess.run(
        command, cwd=source.parent, capture_output=True, text=True, check=False, timeout=COMPILE_SECONDS_MAX
    )
    if done.returncode != 0:
        raise CompileError(f"{source.name} does not compile:\n{done.stderr.strip()}")
    return done.stdout.strip()


def require_compiler() -> None:
    asked = subprocess.run([sys.executable, "-m", "vyper", "--version"], capture_output=True, text=True, check=False)
    if asked.stdout.partition("+")[0] != COMPILER_VERSION:
        raise CompileError(
            f"the artifacts are made by Vyper {COMPILER_VERSION}, and {sys.executable} has "
            f"{asked.stdout.strip() or 'none'}: run make setup-env and use .venv/bin/python"
        )


def compile_all(package: Path) -> dict[Path, str]:
    """The text of each artifact, by the path it belongs at. Raises `CompileError`."""
    require_compiler()
    found = contract_files(package / "sources")
    with concurrent.futures.ThreadPoolExecutor(PROCESSES) as pool:
        texts = list(pool.map(compiled, found))
    return {package / "artifacts" / f"{path.stem}.json": text for path, text in zip(found, texts, strict=True)}


def differences(package: Path, wanted: Mapping[Path, str]) -> list[str]:
    """What is wrong with the artifacts that are there."""
    there = {path: path.read_text(encoding="utf-8") for path in sorted((package / "artifacts").glob("*.json"))}
    found = [f"{path.name} is missing" for path in wanted if path not in there]
    found += [
        f"{path.name} does not match its source" for path, text in wanted.items() if there.get(path, text) != text
    ]
    return found + [f"{path.name} has no source" for path in there if path not in wanted]


def write(package: Path, wanted: Mapping[Path, str]) -> None:
    (package / "artifacts").mkdir(exist_ok=True)
    for path in set((package / "artifacts").glob("*.json")) - set(wanted):
        path.unlink()
    for path, text in wanted.items():
        path.write_text(text, encoding="utf-8")
        print(f"{path.name}: {len(json.loads(text)['runtime_bytecode']) // 2 - 1} bytes on the chain")


def main() -> int:
    parser = argparse.ArgumentParser(description="Compile the contracts into their artifacts.")
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if an artifact does not match")
    parser.add_argument("--package", type=Path, default=PACKAGE, help="the folder that holds sources and artifacts")
    arguments = parser.parse_args()
    package: Path = arguments.package.resolve()
    try:
        wanted = compile_all(package)
    except CompileError as error:
        print(f"contracts: {error}", file=sys.stderr)
        return 1
    if not arguments.check:
        write(package, wanted)
        return 0
    found = differences(package, wanted)
    for difference in found:
        print(f"contracts: {difference}; run make contracts and commit what it writes", file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
