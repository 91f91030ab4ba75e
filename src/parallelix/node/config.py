"""`~/.parallelix/config.toml`: what an operator decides, each with a default. It holds no secret.

Read when a command starts. `pause` and `hours` are read again at every heartbeat of a running node.
"""

from __future__ import annotations

import ipaddress
import re
from datetime import datetime
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from parallelix import private_files
from parallelix.node.errors import ConfigRefused, SecretOffered
from parallelix.node.home import Home
from parallelix.node.hours import is_open, parse_hours
from parallelix.protocol.canonical import Count
from parallelix.protocol.messages import MODELS_MAX, SLOTS_MAX, ShortText

DEFAULT_COORDINATOR = "https://parallelix.io/api"
DEFAULT_OLLAMA = "http://127.0.0.1:11434"
DEFAULT_MODEL = "llama3.2"
ETHEREUM = 1

_ADDRESS = re.compile(r"0x[0-9a-fA-F]{40}")
_SECRET = re.compile(r"(?:.*=)?\s*(?:0[xX])?[0-9a-fA-F]{64}\s*")
_WORDS_OF_A_SEED = 12

Url = Annotated[str, Meta(max_length=512)]


class Contracts(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Addresses that `status` prints, so that an operator can look them up. Empty: as the network says."""

    NodeRegistryLocker: ShortText = ""
    OperatorStakeRewardsV2: ShortText = ""


class Config(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """`tier` is the registered one, 0 while unknown; `gguf` the files for llama_cpp; empty `models` means all."""

    coordinator: Url = DEFAULT_COORDINATOR
    chain_id: Count = ETHEREUM
    wallet: ShortText = ""
    tier: Annotated[int, Meta(ge=0, le=4)] = 0
    runtime: Literal["ollama", "llama_cpp"] = "ollama"
    ollama_url: Url = DEFAULT_OLLAMA
    gguf: Annotated[tuple[str, ...], Meta(max_length=MODELS_MAX)] = ()
    slots: Annotated[int, Meta(ge=1, le=SLOTS_MAX)] = 1
    models: Annotated[tuple[ShortText, ...], Meta(max_length=MODELS_MAX)] = ()
    region: ShortText = ""
    hours: ShortText = ""
    pause: ShortText = ""
    deployment_file: Annotated[str, Meta(max_length=4096)] = ""
    rpc_url: Url = ""
    contracts: Contracts = Contracts()


COMMENTS = {
    "coordinator": "The coordinator's base URL. The node only ever calls out; it opens no port.",
    "chain_id": "The chain that holds the stake: 1 is Ethereum.",
    "wallet": "The staking wallet's address, for your own reference. Never its key.",
    "tier": "The tier registered on-chain; `start` refuses to run on a machine below it. 0: not checked here.",
    "runtime": "What runs the models: ollama, or llama_cpp with the files in gguf.",
    "ollama_url": "Where Ollama answers. Keep it on the loopback.",
    "gguf": "Model files for the llama_cpp runtime.",
    "slots": "Requests served at once; with Ollama at most OLLAMA_NUM_PARALLEL.",
    "models": "Models to serve, by name. Empty: all that are installed.",
    "region": "Where this machine is, such as eu-west. Optional.",
    "hours": "When to take work, local time, such as 22:00-06:00. Empty: always. Takes effect while running.",
    "pause": "A message here stops new work until it is empty again. Takes effect while running.",
    "deployment_file": "A file of `parallelix chain deploy`: with it and rpc_url, `status` asks the chain itself.",
    "rpc_url": "An Ethereum JSON-RPC endpoint without a key in its URL; else PARALLELIX_RPC_URL in the environment.",
    "contracts": "Contract addresses for `status` to print. Empty: as the network says.",
}


def load_config(home: Home) -> Config:
    """Defaults where there is no file. Raises `ConfigRefused` with the field, its value and the bound."""
    try:
        data = private_files.read(home.config, public=True)
    except FileNotFoundError:
        return Config()
    except private_files.PrivateFileRefused as error:
        raise ConfigRefused(str(error)) from error
    try:
        config = msgspec.toml.decode(data, type=Config)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigRefused(f"{home.config}: {error}; correct the file, or move it away for the defaults") from error
    return checked(config, where=f"{home.config}: ")


def checked(config: Config, *, where: str = "") -> Config:
    """The same with its address and URLs in one form. Raises `ConfigRefused`."""
    try:
        parse_hours(config.hours)
        return msgspec.structs.replace(
            config,
            coordinator=service_url(config.coordinator, name="coordinator"),
            ollama_url=service_url(config.ollama_url, name="ollama_url", http_anywhere=True),
            wallet=wallet_address(config.wallet) if config.wallet else "",
        )
    except ConfigRefused as error:
        raise type(error)(where + error.message) from error


def encode_config(config: Config) -> bytes:
    """The file with a comment above each setting."""
    import tomli_w

    values: dict[str, Any] = msgspec.to_builtins(config)
    head = "# parallelix-node. Read at start; `pause` and `hours` also while the node runs. Holds no secret.\n"
    return (head + "".join(f"\n# {COMMENTS[name]}\n{tomli_w.dumps({name: values[name]})}" for name in values)).encode()


def paused_because(home: Home, hours: str, now: datetime) -> str:
    """Why the node takes no new work at `now` (local time), or "" when it does.

    `hours` holds where the file cannot be read: half a line under an editor must not take a node off the network.
    """
    try:
        config = load_config(home)
    except ConfigRefused:
        config = Config(hours=hours)
    if config.pause:
        return config.pause
    windows = parse_hours(config.hours)
    return "" if is_open(windows, now.time()) else f"outside the operator's hours {config.hours}"


def wallet_address(text: str) -> str:
    """The address in EIP-55 mixed case. Raises `SecretOffered` or `ConfigRefused`, neither repeating the value."""
    from parallelix.protocol.signing import checksum_address

    refuse_secret(text)
    text = text.strip()
    if _ADDRESS.fullmatch(text) is None:
        raise ConfigRefused(
            f"wallet: {len(text)} characters that are no address; expected 0x and 40 hex digits, the staking wallet's"
        )
    digits = text[2:]
    address = checksum_address(bytes.fromhex(digits))
    if digits not in (digits.lower(), digits.upper()) and text != address:
        raise ConfigRefused(f"wallet {text}: its mixed case is no EIP-55 checksum, so a digit is wrong; copy it again")
    return address


def refuse_secret(text: str) -> None:
    """Raises `SecretOffered` for what can be a private key or a seed phrase, without showing any of it."""
    if _SECRET.fullmatch(text) or len(text.split()) >= _WORDS_OF_A_SEED:
        raise SecretOffered(
            "STOP: that looks like a PRIVATE KEY or a seed phrase, and parallelix-node never needs one. Nothing was "
            "stored. It is now in your shell's history: treat it as exposed and move that wallet's funds. "
            "Give the wallet's public ADDRESS: 0x and 40 hex digits"
        )


def service_url(text: str, *, name: str, http_anywhere: bool = False) -> str:
    """A base URL without its last slash. Raises `ConfigRefused`.

    Plain http is for the loopback alone, unless `http_anywhere`; names and passwords inside a URL are refused, since
    a node sends no credentials.
    """
    url = urlsplit(text)
    try:
        host, _port = url.hostname, url.port
    except ValueError as error:
        raise ConfigRefused(f"{name}: its port is not a number from 0 to 65535") from error
    if url.scheme not in ("http", "https") or not host:
        raise ConfigRefused(f"{name} {text[:80]!r}: expected an http or https URL, such as {DEFAULT_COORDINATOR}")
    if url.username is not None or url.password is not None or url.query or url.fragment:
        raise ConfigRefused(f"{name}: a user name, query or fragment has no place in it; give scheme, host and path")
    if url.scheme == "http" and not http_anywhere and not is_loopback(host):
        raise ConfigRefused(f"{name} {text[:80]!r}: plain http is for this machine only; use https")
    return text.rstrip("/")


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
