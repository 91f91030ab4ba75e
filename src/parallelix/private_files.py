"""The only functions that create, check and read files which hold a secret.

A private file is a regular file of this user, mode 0600, in a folder of this user with mode 0700. Whatever is looser is
refused rather than repaired: somebody may already have read it. What is checked is what was opened, so nothing can be
exchanged between the check and the read.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

FILE_MODE = 0o600
FOLDER_MODE = 0o700
FILE_BYTES_MAX = 64 * 1024
"""An RSA-3072 key in PEM is 2.5 KiB, a long config.toml 10 KiB. More is not a file of ours."""


class PrivateFileRefused(Exception):
    """A file or folder is loose, foreign, a link or too large; the message says what to do."""


def make_folder(path: Path) -> None:
    """Creates `path` with mode 0700 whatever the umask; one that exists is checked instead."""
    try:
        path.mkdir(mode=FOLDER_MODE)
    except FileExistsError:
        require_folder(path)
    else:
        path.chmod(FOLDER_MODE)


def require_folder(path: Path, *, owner_uid: int | None = None) -> None:
    """Raises `FileNotFoundError` or `PrivateFileRefused`. `owner_uid` is who must own it, by default the user who runs
    this."""
    _require_private(path, path.lstat(), folder=True, owner_uid=owner_uid)


def read(path: Path, *, owner_uid: int | None = None, public: bool = False) -> bytes:
    """The bytes of a private file. Raises `FileNotFoundError` or `PrivateFileRefused`.

    A `public` one holds no secret: others may read it, but not write it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise PrivateFileRefused(f"{path}: is a symbolic link; put the file itself there") from error
        raise PrivateFileRefused(
            f"{path}: cannot be opened ({error.strerror}); it must be yours, with mode 0600"
        ) from error
    try:
        found = os.fstat(descriptor)
        _require_private(path, found, folder=False, owner_uid=owner_uid, forbidden=0o022 if public else 0o077)
        if found.st_size > FILE_BYTES_MAX:
            raise PrivateFileRefused(
                f"{path}: {found.st_size} bytes, at most {FILE_BYTES_MAX}; it is not a file of ours"
            )
        return os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def create(path: Path, data: bytes, *, durable: bool = True) -> None:
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


def replace(path: Path, data: bytes, *, durable: bool = True) -> None:
    """Puts `data` in place of whatever `path` was, whole or not at all; when `durable`, even through a power cut."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        create(temporary, data, durable=durable)
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


def _require_private(
    path: Path, found: os.stat_result, *, folder: bool, owner_uid: int | None, forbidden: int = 0o077
) -> None:
    wanted, mode_wanted = ("folder", FOLDER_MODE) if folder else ("regular file", FILE_MODE)
    owner = os.geteuid() if owner_uid is None else owner_uid
    if stat.S_ISLNK(found.st_mode):
        raise PrivateFileRefused(f"{path}: is a symbolic link; put the {wanted} itself there")
    if not (stat.S_ISDIR if folder else stat.S_ISREG)(found.st_mode):
        raise PrivateFileRefused(f"{path}: is not a {wanted}; move it away")
    if found.st_uid != owner:
        raise PrivateFileRefused(
            f"{path}: belongs to user {found.st_uid}, must belong to user {owner}; run: chown {owner} {path}"
        )
    mode = stat.S_IMODE(found.st_mode)
    if mode & forbidden:
        raise PrivateFileRefused(
            f"{path}: mode {mode:04o} lets others in, must be {mode_wanted:04o}; run: chmod {mode_wanted:o} {path}"
        )
