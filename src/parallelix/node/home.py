"""`~/.parallelix`: where each file lies, and who uses the folder. `PARALLELIX_HOME` names another one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from parallelix.node.errors import Busy, KeyMissing, KeyRefused
from parallelix.private_files import FILE_MODE, PrivateFileRefused

HOLDER_CHARACTERS_MAX = 80


@dataclass(frozen=True, slots=True)
class Home:
    """The paths below one node's folder."""

    root: Path

    @classmethod
    def from_environment(cls) -> Home:
        chosen = os.environ.get("PARALLELIX_HOME")
        return cls(Path(chosen).absolute() if chosen else Path.home() / ".parallelix")

    def shown(self, path: Path) -> str:
        """`~/.parallelix/node.key` rather than the whole path."""
        user_home = Path.home()
        return f"~/{path.relative_to(user_home)}" if path.is_relative_to(user_home) else str(path)

    @property
    def node_key(self) -> Path:
        return self.root / "node.key"

    @property
    def keys_folder(self) -> Path:
        return self.root / "keys"

    @property
    def envelope_key(self) -> Path:
        return self.keys_folder / "envelope.pem"

    @property
    def poe_key(self) -> Path:
        return self.keys_folder / "poe.pem"

    @property
    def config(self) -> Path:
        return self.root / "config.toml"

    @property
    def state(self) -> Path:
        return self.root / "state.json"

    @property
    def network(self) -> Path:
        return self.root / "network.json"

    @property
    def log(self) -> Path:
        return self.root / "node.log"

    @property
    def cards_folder(self) -> Path:
        return self.root / "cards"

    def card(self, model_digest: str) -> Path:
        """The calibration card of a model."""
        return self.cards_folder / f"{model_digest[:16]}.json"

    @property
    def lock(self) -> Path:
        return self.root / "lock"


@contextlib.contextmanager
def key_trouble() -> Generator[None]:
    """What is wrong with a private file, in an operator's words: `KeyMissing` or `KeyRefused`."""
    try:
        yield
    except FileNotFoundError as error:
        raise KeyMissing(f"{error.filename}: not there; run `parallelix-node init` first") from error
    except PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error


@contextlib.contextmanager
def exclusive(home: Home, *, purpose: str) -> Generator[None]:
    """Holds the folder against a second daemon or `init`. The kernel lets go when the process ends, however it ends.

    Raises `Busy`.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with os.fdopen(os.open(home.lock, flags, FILE_MODE), "r+") as file:
        os.fchmod(file.fileno(), FILE_MODE)
        if not _locked(file):
            user = file.read(HOLDER_CHARACTERS_MAX).strip() or "another command"
            raise Busy(f"{home.root}: in use by {user}; stop it, or set PARALLELIX_HOME to another folder")
        file.truncate(0)
        file.write(f"{purpose} (pid {os.getpid()})")
        file.flush()
        try:
            yield
        finally:
            file.seek(0)
            file.truncate(0)


def holder(home: Home) -> str | None:
    """Who holds the folder, such as `start (pid 4711)`; None when nobody does."""
    try:
        descriptor = os.open(home.lock, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
    with os.fdopen(descriptor) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return file.read(HOLDER_CHARACTERS_MAX).strip() or "another command"
    return None


def _locked(file: TextIO) -> bool:
    # `status` holds the lock for a moment when it asks who does.
    for wait_seconds in (0.05, 0.1, None):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if wait_seconds is not None:
                time.sleep(wait_seconds)
        else:
            return True
    return False
