"""What ships is what the sources say: the committed artifacts, byte for byte, and a wheel that holds all of it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from email.parser import HeaderParser
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from parallelix_contracts import CONTRACTS, artifact

REPOSITORY = Path(__file__).resolve().parents[2]
DISTRIBUTION = REPOSITORY / "contracts"
PACKAGE = DISTRIBUTION / "src" / "parallelix_contracts"


def compiler(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DISTRIBUTION / "compile.py", *arguments]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=300)


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A small contract and its artifact."""
    (tmp_path / "sources").mkdir()
    (tmp_path / "sources" / "Counter.vy").write_text("# pragma version 0.4.3\ncount: public(uint256)\n")
    assert compiler("--package", tmp_path).returncode == 0
    return tmp_path


def test_the_artifacts_match_the_sources_byte_for_byte() -> None:
    checked = compiler("--check")
    assert (checked.returncode, checked.stderr) == (0, "")


def test_the_same_source_compiles_to_the_same_bytes_in_another_folder(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE / "sources" / "interfaces", tmp_path / "sources" / "interfaces")
    shutil.copyfile(PACKAGE / "sources" / "PRLX.vy", tmp_path / "sources" / "PRLX.vy")
    assert compiler("--package", tmp_path).returncode == 0
    assert (tmp_path / "artifacts" / "PRLX.json").read_bytes() == (PACKAGE / "artifacts" / "PRLX.json").read_bytes()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ("a comment in the source", "Counter.json does not match its source"),
        ("one more contract", "Another.json is missing"),
        ("a contract less", "Counter.json has no source"),
    ],
)
def test_the_check_names_what_does_not_match(package: Path, change: str, complaint: str) -> None:
    assert compiler("--package", package, "--check").returncode == 0
    source = package / "sources" / "Counter.vy"
    match change:
        case "a comment in the source":
            source.write_text(source.read_text() + "# a comment\n")
        case "one more contract":
            shutil.copyfile(source, source.with_name("Another.vy"))
        case _:
            source.unlink()
    checked = compiler("--package", package, "--check")
    assert checked.returncode == 1
    assert complaint in checked.stderr


def test_a_source_that_does_not_compile_says_why_and_writes_nothing(package: Path) -> None:
    artifact_file = package / "artifacts" / "Counter.json"
    before = artifact_file.read_bytes()
    (package / "sources" / "Counter.vy").write_text("# pragma version 0.4.3\nkept: public(nonsense)\n")
    done = compiler("--package", package)
    assert done.returncode == 1
    assert "Counter.vy does not compile" in done.stderr
    assert "nonsense" in done.stderr
    assert artifact_file.read_bytes() == before


def test_each_contract_has_its_artifact_and_each_artifact_its_contract() -> None:
    assert {path.stem for path in (PACKAGE / "artifacts").iterdir()} == set(CONTRACTS)
    assert {path.stem for path in (PACKAGE / "sources").glob("[A-Z]*.vy")} == set(CONTRACTS)


@pytest.mark.parametrize("name", CONTRACTS)
def test_an_artifact_says_what_it_is_made_of(name: str) -> None:
    made = artifact(name)
    assert (made.name, made.compiler_version) == (name, "0.4.3")
    assert made.runtime_bytecode in made.creation_bytecode
    assert made.abi_sha256 == sha256(json.dumps(made.abi, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
    ours = {path: digest for path, digest in made.source_sha256.items() if not path.startswith("snekmate/")}
    assert f"{name}.vy" in ours
    for path, digest in ours.items():
        assert sha256((PACKAGE / "sources" / path).read_bytes()).hexdigest() == digest, path


@pytest.mark.parametrize("name", CONTRACTS)
def test_a_contract_fits_on_the_chain(name: str) -> None:
    most_bytes_of_code = 24_576  # EIP-170
    immutables = artifact(name).storage_layout.get("code_layout", {})
    assert len(artifact(name).runtime_bytecode) + length_of(immutables) <= most_bytes_of_code


def length_of(layout: Mapping[str, Any]) -> int:
    if isinstance(layout.get("length"), int):
        return layout["length"]
    return sum(length_of(part) for part in layout.values())


def test_an_unknown_contract_is_refused_by_name() -> None:
    with pytest.raises(LookupError, match="no contract is called 'Vault': choose one of PRLX, "):
        artifact("Vault")


def test_the_wheel_holds_sources_artifacts_and_the_licence(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(command, cwd=DISTRIBUTION, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("parallelix_contracts-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        headers = HeaderParser().parsestr(archive.read(metadata).decode())
        licence = archive.read(metadata.replace("METADATA", "licenses/LICENSE"))
    for name in CONTRACTS:
        assert f"parallelix_contracts/sources/{name}.vy" in names
        assert f"parallelix_contracts/artifacts/{name}.json" in names
    assert any(name.startswith("parallelix_contracts/sources/interfaces/") for name in names)
    assert headers["License-Expression"] == "AGPL-3.0-only"
    assert headers.get_all("Requires-Dist") is None
    assert licence == (DISTRIBUTION / "LICENSE").read_bytes()
    assert b"GNU AFFERO GENERAL PUBLIC LICENSE" in licence
