"""Which coordinator, with which key: options, then the environment, then `~/.parallelix/client.toml`, then defaults.

The file holds an API key, so it is a regular file of this user with mode 0600 in a folder of mode 0700. A looser one is
refused rather than repaired: somebody may already have read it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import stat
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from parallelix.client.errors import ConfigRefused, KeyRefused

DEFAULT_URL = "https://parallelix.io/api"
FILE_MODE = 0o600
FOLDER_MODE = 0o700
FILE_BYTES_MAX = 16 * 1024
"""Four short lines. More is not a file of ours."""

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")

Line = Annotated[str, Meta(max_length=512)]


class ClientConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`model` is asked where none is named; `coordinator` is the address that must have signed a receipt."""

    url: Line = ""
    api_key: Line = ""
    model: Line = ""
    coordinator: Line = ""

    def __repr__(self) -> str:
        return f"ClientConfig({self.url})"


def folder() -> Path:
    chosen = os.environ.get("PARALLELIX_HOME")
    return Path(chosen).absolute() if chosen else Path.home() / ".parallelix"


def path() -> Path:
    return folder() / "client.toml"


def shown(path: Path) -> str:
    """`~/.parallelix/client.toml` rather than the whole path."""
    home = Path.home()
    return f"~/{path.relative_to(home)}" if path.is_relative_to(home) else str(path)


def load(*, url: str = "") -> ClientConfig:
    """What holds for one command. Raises `ConfigRefused` or `KeyRefused`."""
    stored = load_file()
    chosen = url or os.environ.get("PARALLELIX_URL", "") or stored.url or DEFAULT_URL
    key = os.environ.get("PARALLELIX_API_KEY", "")
    if not key and stored.api_key and _same(chosen, stored.url or DEFAULT_URL):
        # The stored key is for the stored coordinator; another one must not be shown it.
        key = stored.api_key
    return msgspec.structs.replace(stored, url=chosen, api_key=key)


def load_file() -> ClientConfig:
    data = _read(path())
    if data is None:
        return ClientConfig()
    try:
        config = msgspec.toml.decode(data, type=ClientConfig)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        # A parser's complaint may quote the line that holds the key.
        at = str(error) if isinstance(error, msgspec.ValidationError) else "is not valid TOML"
        raise ConfigRefused(f"{shown(path())}: {at}; correct it, or run `parallelix login` anew") from error
    if config.coordinator:
        require_address(config.coordinator)
    return config


def save(config: ClientConfig) -> Path:
    """Puts the file in place whole or not at all. Raises `KeyRefused` when its folder is loose."""
    target = path()
    make_folder()
    lines = ["# parallelix. Written by `parallelix login`; holds an API key."]
    # A JSON string is a TOML string too.
    lines += [f"{name} = {json.dumps(value)}" for name, value in msgspec.structs.asdict(config).items() if value]
    replace_private(target, ("\n".join(lines) + "\n").encode())
    return target


def replace_private(path: Path, data: bytes) -> None:
    """Puts a file of mode 0600 in place of whatever was there, whole or not at all."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(temporary, flags, FILE_MODE), "wb") as file:
            os.fchmod(file.fileno(), FILE_MODE)
            file.write(data)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def make_folder() -> Path:
    """Our folder, made where it is not there. Raises `KeyRefused` when it is loose."""
    made = folder()
    try:
        made.mkdir(mode=FOLDER_MODE, parents=True)
        made.chmod(FOLDER_MODE)
    except FileExistsError:
        _require_private(made, made.lstat(), is_folder=True)
    return made


def require_address(text: str) -> str:
    """A coordinator's address in any case. Raises `ConfigRefused`."""
    if _ADDRESS.fullmatch(text) is None:
        raise ConfigRefused(f"coordinator {text[:60]!r}: expected an address, 0x and 40 hex digits")
    return text


def _same(one: str, other: str) -> bool:
    return one.rstrip("/").removesuffix("/v1") == other.rstrip("/").removesuffix("/v1")


def _read(path: Path) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise KeyRefused(f"{shown(path)}: cannot be opened ({error.strerror}); it must be a file of yours") from error
    try:
        found = os.fstat(descriptor)
        _require_private(path, found, is_folder=False)
        if found.st_size > FILE_BYTES_MAX:
            raise KeyRefused(f"{shown(path)}: {found.st_size} bytes, at most {FILE_BYTES_MAX}; it is no file of ours")
        return os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)


def _require_private(path: Path, found: os.stat_result, *, is_folder: bool) -> None:
    wanted, mode_wanted = ("folder", FOLDER_MODE) if is_folder else ("regular file", FILE_MODE)
    if not (stat.S_ISDIR if is_folder else stat.S_ISREG)(found.st_mode):
        raise KeyRefused(f"{shown(path)}: is not a {wanted}; move it away")
    if found.st_uid != os.geteuid():
        raise KeyRefused(f"{shown(path)}: belongs to user {found.st_uid}, must belong to user {os.geteuid()}")
    mode = stat.S_IMODE(found.st_mode)
    if mode & 0o077:
        raise KeyRefused(
            f"{shown(path)}: mode {mode:04o} lets others in, must be {mode_wanted:04o}; run: "
            f"chmod {mode_wanted:o} {shown(path)}"
        )
