"""Which coordinator, with which key: options, then the environment, then `~/.parallelix/client.toml`, then defaults.

The file holds an API key, so it is a private one (`private_files`).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Annotated

import msgspec
from msgspec import Meta

from parallelix import private_files
from parallelix.client.errors import ConfigRefused, KeyRefused

DEFAULT_URL = "https://parallelix.io/api"

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
    try:
        data = private_files.read(path())
    except FileNotFoundError:
        return ClientConfig()
    except private_files.PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error
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
    private_files.replace(target, ("\n".join(lines) + "\n").encode())
    return target


def make_folder() -> Path:
    """Our folder, made where it is not there. Raises `KeyRefused` when it is loose."""
    made = folder()
    made.parent.mkdir(parents=True, exist_ok=True)
    try:
        private_files.make_folder(made)
    except private_files.PrivateFileRefused as error:
        raise KeyRefused(str(error)) from error
    return made


def require_address(text: str) -> str:
    """A coordinator's address in any case. Raises `ConfigRefused`."""
    if _ADDRESS.fullmatch(text) is None:
        raise ConfigRefused(f"coordinator {text[:60]!r}: expected an address, 0x and 40 hex digits")
    return text


def _same(one: str, other: str) -> bool:
    return one.rstrip("/").removesuffix("/v1") == other.rstrip("/").removesuffix("/v1")
