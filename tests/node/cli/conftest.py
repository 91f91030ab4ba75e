from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from node_scene import Operate, Printed
from node_worlds import H100, Nvml, NvmlCard

from parallelix.node import cli, keys
from parallelix.node.home import Home


@pytest.fixture(autouse=True)
def plain_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "XDG_CONFIG_HOME", "SUDO_USER", "http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm-256color")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Home:
    """The node's folder, not made yet, in a home directory of its own."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("PARALLELIX_HOME", raising=False)
    return Home(tmp_path / ".parallelix")


@pytest.fixture(scope="session")
def made_keys(tmp_path_factory: pytest.TempPathFactory) -> Home:
    """Keys made once for all tests that only read some."""
    home = Home(tmp_path_factory.mktemp("keys") / ".parallelix")
    keys.create_keys(home, replace=False, config=b"")
    return home


@pytest.fixture
def operate(home: Home, capsys: pytest.CaptureFixture[str]) -> Operate:
    """Runs one command as an operator types it."""

    def run(*arguments: str) -> Printed:
        capsys.readouterr()
        code = cli.run(list(arguments))
        captured = capsys.readouterr()
        return Printed(code=code, out=captured.out, err=captured.err)

    return run


@pytest.fixture
def graphics(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts graphics cards into this machine, as far as the driver's library tells; none without arguments."""

    def put(*cards: NvmlCard) -> None:
        monkeypatch.setattr(sys, "platform", "linux")
        monkeypatch.setitem(sys.modules, "pynvml", Nvml(list(cards), driver=bool(cards)))  # pyright: ignore[reportArgumentType]

    return put


@pytest.fixture
def h100(graphics: Callable[..., None]) -> None:
    graphics(H100)
