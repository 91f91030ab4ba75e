"""Set-up finds an Ollama and an anvil in the documented order, takes from npm only what is known here, and says what to
do where it cannot go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def version_in(script: str) -> str:
    return re.findall(r'^VERSION = "(.*)"$', (REPOSITORY / "scripts" / script).read_text(), re.MULTILINE)[0]


BUILT_VERSION = version_in("ollama.py")
ANVIL_VERSION = version_in("anvil.py")


def program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def installed_ollama(path: Path, version: str) -> Path:
    return program(path, f"echo 'Warning: client version is {version}'")


@pytest.fixture
def machine(tmp_path: Path) -> dict[str, str]:
    """The environment of a machine without Ollama: nothing on PATH but the shell's own tools, an empty cache."""
    return {"PATH": f"{tmp_path / 'bin'}:/usr/bin:/bin", "XDG_CACHE_HOME": str(tmp_path / "cache"), "HOME": "/nowhere"}


def run_script(*arguments: str, machine: dict[str, str], script: str = "ollama.py") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / script), *arguments]
    return subprocess.run(command, env=machine, capture_output=True, text=True, check=False)


def found(machine: dict[str, str]) -> str:
    return run_script("find", machine=machine).stdout.strip()


def test_ollama_is_looked_for_by_name_then_on_path_then_in_the_cache(tmp_path: Path, machine: dict[str, str]) -> None:
    assert found(machine) == ""
    cache = tmp_path / "cache" / "parallelix" / "ollama"
    cached = installed_ollama(cache / BUILT_VERSION / "ollama", BUILT_VERSION)
    assert found(machine) == str(cached)
    on_path = installed_ollama(tmp_path / "bin" / "ollama", "0.12.11")
    assert found(machine) == str(on_path)
    named = installed_ollama(tmp_path / "elsewhere" / "ollama", "0.18.0")
    assert found(machine | {"OLLAMA_BIN": str(named)}) == str(named)


def test_an_ollama_that_returns_no_log_probabilities_is_passed_over(tmp_path: Path, machine: dict[str, str]) -> None:
    installed_ollama(tmp_path / "bin" / "ollama", "0.12.10")
    answer = run_script("find", machine=machine)
    assert answer.returncode == 1
    assert "is Ollama 0.12.10, older than 0.12.11" in answer.stderr


def test_a_named_ollama_that_cannot_be_used_stops_the_search(tmp_path: Path, machine: dict[str, str]) -> None:
    installed_ollama(tmp_path / "bin" / "ollama", "0.17.4")
    answer = run_script("find", machine=machine | {"OLLAMA_BIN": "/no/such/ollama"})
    assert answer.returncode == 1
    assert answer.stdout == ""
    assert "OLLAMA_BIN=/no/such/ollama is not an Ollama of version 0.12.11 or newer" in answer.stderr


def test_without_root_the_line_to_run_is_printed(tmp_path: Path, machine: dict[str, str]) -> None:
    for tool in ("apt-get", "gcc", "g++"):
        program(tmp_path / "bin" / tool, "exit 1")
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'scripts')!r}); import os, ollama; "
        "os.geteuid = lambda: 1000; ollama.ensure()"
    )
    answer = subprocess.run([sys.executable, "-c", script], env=machine, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert (
        "sudo apt-get update && sudo apt-get install -y --no-install-recommends nlohmann-json3-dev libstb-dev"
        in answer.stderr
    )
    assert not (tmp_path / "cache").exists()


def test_anvil_is_looked_for_by_name_then_in_the_cache_and_never_on_path(
    tmp_path: Path, machine: dict[str, str]
) -> None:
    program(tmp_path / "bin" / "anvil", "echo anvil Version: 1.0.0")
    assert run_script("find", machine=machine, script="anvil.py").returncode == 1
    cached = program(tmp_path / "cache/parallelix/anvil" / ANVIL_VERSION / "anvil/bin/anvil", "echo anvil Version: 1")
    assert run_script("find", machine=machine, script="anvil.py").stdout.strip() == str(cached)
    named = program(tmp_path / "elsewhere" / "anvil", "echo anvil Version: 1.9.0")
    by_name = machine | {"ANVIL_BIN": str(named)}
    assert run_script("find", machine=by_name, script="anvil.py").stdout.strip() == str(named)
    named.unlink()
    answer = run_script("find", machine=by_name, script="anvil.py")
    assert (answer.returncode, answer.stdout) == (1, "")
    assert f"ANVIL_BIN={named} is not an anvil that runs: correct or unset it" in answer.stderr


def npm_that_packs(tmp_path: Path, packed: Path) -> Path:
    """An npm that answers each `npm pack` with the same tarball, and notes that it was asked."""
    return program(tmp_path / "bin" / "npm", f'echo "$@" >> {tmp_path}/asked\ncp {packed} packed.tgz')


@pytest.fixture
def foreign_tarball(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "package.json").write_text("{}")
    with tarfile.open(tmp_path / "foreign.tgz", "w:gz") as archive:
        archive.add(tmp_path / "package", "package")
    return tmp_path / "foreign.tgz"


def test_a_package_with_another_sum_is_refused_and_stays_out_of_the_cache(
    tmp_path: Path, machine: dict[str, str], foreign_tarball: Path
) -> None:
    npm_that_packs(tmp_path, foreign_tarball)
    answer = run_script("ensure", machine=machine, script="sablier.py")
    assert answer.returncode == 1
    assert "npm gave another @sablier/lockup@4.0.1 than the one known here: its sum is sha512-" in answer.stderr
    assert run_script("find", machine=machine, script="sablier.py").returncode == 1
    assert [path.name for path in (tmp_path / "cache" / "parallelix" / "sablier").iterdir()] == ["lock"]


def test_packages_are_fetched_once_and_what_a_killed_run_left_is_removed(
    tmp_path: Path, machine: dict[str, str], foreign_tarball: Path
) -> None:
    npm_that_packs(tmp_path, foreign_tarball)
    left_behind = tmp_path / "cache" / "parallelix" / "thing" / "build-left"
    left_behind.mkdir(parents=True)
    script = (
        f"import sys; sys.path.insert(0, {str(REPOSITORY / 'scripts')!r}); import npm; "
        "npm.ensure(npm.cache_folder('thing') / '1.0', {'part': npm.Package('thing', '1.0')})"
    )
    for _ in range(2):
        subprocess.run([sys.executable, "-c", script], env=machine, check=True, capture_output=True)
    assert (left_behind.parent / "1.0" / "part" / "package.json").read_text() == "{}"
    assert not left_behind.exists()
    assert (tmp_path / "asked").read_text().splitlines() == ["pack --silent --ignore-scripts thing@1.0"]


def test_make_help_lists_what_a_developer_types() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    described = {line.split()[1]: line.split(maxsplit=2)[2] for line in shown.splitlines()}
    assert {
        "setup",
        "test",
        "lint",
        "demo",
        "bench",
        "docs",
        "crash",
        "canary",
        "chain-faults",
        "fuzz-api",
        "contracts",
    } <= described.keys()


def test_the_documentation_builds_without_a_broken_link(tmp_path: Path) -> None:
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")],
        cwd=REPOSITORY,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    assert (tmp_path / "site" / "index.html").is_file()
