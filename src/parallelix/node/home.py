"""`~/.parallelix`: where each file lies, and the only functions that create, check and read private ones.

A private file is a regular file of this user, mode 0600, in folders of this user with mode 0700. Whatever is looser is
refused rather than repaired: somebody may already have read it. `PARALLELIX_HOME` names another folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from parallelix.node.errors import Busy, KeyMissing, KeyRefused

FILE_MODE = 0o600
FOLDER_MODE = 0o700
PRIVATE_FILE_BYTES_MAX = 64 * 1024
"""An RSA-3072 key in PEM is 2.5 KiB, a long config.toml 10 KiB. More is not a file of ours."""
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
    def log(self) -> Path:
        return self.root / "node.log"

    @property
    def lock(self) -> Path:
        return self.root / "lock"


def make_folder(path: Path) -> None:
    """Creates `path` with mode 0700 whatever the umask; one that exists is checked instead."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        require_private_folder(path)
    else:
        path.chmod(FOLDER_MODE)


def require_private_folder(path: Path, *, owner_uid: int | None = None) -> None:
    """Raises `KeyMissing` or `KeyRefused`. `owner_uid` is who must own it, by default the user who runs this."""
    try:
        found = path.lstat()
    except FileNotFoundError as error:
        raise KeyMissing(f"{path}: not there; run `parallelix-node init` first") from error
    _require_private(path, found, folder=True, owner_uid=owner_uid)


def read_private(path: Path, *, owner_uid: int | None = None, public: bool = False) -> bytes:
    """The bytes of a private file. Raises `KeyMissing` or `KeyRefused`.

    A `public` one holds no secret: others may read it, but not write it. What is checked is what was opened, so
    nothing can be exchanged between the check and the read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError as error:
        raise KeyMissing(f"{path}: not there; run `parallelix-node init` first") from error
    except OSError as error:
        if path.is_symlink():
            raise KeyRefused(f"{path}: is a symbolic link; put the file itself there") from error
        raise KeyRefused(f"{path}: cannot be opened ({error.strerror}); it must be yours, with mode 0600") from error
    try:
        found = os.fstat(descriptor)
        _require_private(path, found, folder=False, owner_uid=owner_uid, forbidden=0o022 if public else 0o077)
        if found.st_size > PRIVATE_FILE_BYTES_MAX:
            raise KeyRefused(
                f"{path}: {found.st_size} bytes, at most {PRIVATE_FILE_BYTES_MAX}; it is not a file of ours"
            )
        return os.read(descriptor, PRIVATE_FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def create_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Writes a new 0600 file whatever the umask, through to the disk when `durable`.

    Raises `FileExistsError`, never overwrites.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags, FILE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        os.fchmod(descriptor, FILE_MODE)
        file.write(data)
        file.flush()
        if durable:
            os.fsync(descriptor)


def replace_private(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Puts `data` in place of whatever `path` was, whole or not at all; when `durable`, even through a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        create_private(temporary, data, durable=durable)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if durable:
        sync_folder(path.parent)


def sync_folder(path: Path) -> None:
    """Makes names that were created, renamed or removed in a folder survive a power cut."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


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


def _require_private(
    path: Path, found: os.stat_result, *, folder: bool, owner_uid: int | None, forbidden: int = 0o077
) -> None:
    wanted, mode_wanted = ("folder", FOLDER_MODE) if folder else ("regular file", FILE_MODE)
    owner = os.geteuid() if owner_uid is None else owner_uid
    if stat.S_ISLNK(found.st_mode):
        raise KeyRefused(f"{path}: is a symbolic link; put the {wanted} itself there")
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
        raise KeyRefused(f"{path}: is not a {wanted}; move it away")
    if found.st_uid != owner:
        raise KeyRefused(
            f"{path}: belongs to user {found.st_uid}, must belong to user {owner}; run: chown {owner} {path}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        raise KeyRefused(
            f"{path}: mode {mode:04o} lets others in, must be {mode_wanted:04o}; run: chmod {mode_wanted:o} {path}"
        )
