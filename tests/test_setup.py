"""Set-up finds an Ollama in the documented order, and says what to do where it cannot go on."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
BUILT_VERSION = re.findall(r'^VERSION = "(.*)"$', (REPOSITORY / "scripts" / "ollama.py").read_text(), re.MULTILINE)[0]


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


def run_script(*arguments: str, machine: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(REPOSITORY / "scripts" / "ollama.py"), *arguments]
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


def test_make_help_lists_what_a_developer_types() -> None:
    shown = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    described = {line.split()[1]: line.split(maxsplit=2)[2] for line in shown.splitlines()}
    assert {"setup", "test", "lint", "demo", "bench", "docs", "crash", "canary", "fuzz-api"} <= described.keys()


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
