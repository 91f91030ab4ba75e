"""`parallelix-node verify`: everything that `start` needs and what an operator gets wrong, each check by itself.

A check never raises: what goes wrong is its finding, with the way out. Later checks run whatever earlier ones found.
"""

from __future__ import annotations

import asyncio
import math
import socket
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from parallelix.node import keys
from parallelix.node.config import DEFAULT_MODEL, Config, is_loopback, load_config
from parallelix.node.errors import NodeError
from parallelix.node.home import Home
from parallelix.node.runtime_choice import open_runtime
from parallelix.node.runtimes.base import RuntimeFailed
from parallelix.node.runtimes.ollama import judge_version

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from parallelix.node.runtimes.base import Runtime

PYTHON_MIN = (3, 11)
CLOCK_SECONDS_MAX = 30
"""The coordinator refuses signed times further off than this. The daemon corrects for it; other programs will not."""
CONNECT_SECONDS_MAX = 0.5
HTTP_SECONDS_MAX = 10
ADDRESSES_MAX = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    name: str
    passed: bool
    message: str
    warning: bool = False
    """Not passed, and yet no reason for `start` to refuse."""


def check_versions(client_version: str) -> Check:
    python = ".".join(map(str, sys.version_info[:3]))
    least = ".".join(map(str, PYTHON_MIN))
    passed = sys.version_info >= PYTHON_MIN
    message = f"Python {python} · parallelix-node {client_version}"
    return Check(name="versions", passed=passed, message=message if passed else f"{message}; Python {least} is needed")


def check_keys(home: Home) -> Check:
    try:
        loaded = keys.load_keys(home)
    except NodeError as error:
        return Check(name="keys", passed=False, message=error.message)
    return Check(name="keys", passed=True, message=f"three keys, mode 0600 · {loaded.node.address}")


async def check_runtime(runtime: Runtime) -> list[Check]:
    """Whether it answers, and is new enough."""
    try:
        version = await runtime.version()
    except RuntimeFailed as error:
        return [Check(name=runtime.name, passed=False, message=str(error))]
    if runtime.name == "ollama" and (facts := judge_version(version)).advice:
        usable = facts.returns_logprobs
        return [Check(name="ollama", passed=False, message=message, warning=usable) for message in facts.advice]
    return [Check(name=runtime.name, passed=True, message=f"running · {version}")]


async def check_models(runtime: Runtime, wanted: Sequence[str]) -> Check:
    """Whether a model is installed, and each of the wanted ones."""
    try:
        installed = [model.name for model in await runtime.models()]
    except RuntimeFailed as error:
        return Check(name="models", passed=False, message=str(error))
    missing = [name for name in wanted if not is_installed(name, installed)]
    if missing or not installed:
        name = missing[0] if missing else DEFAULT_MODEL
        what = f"{name} is not installed" if missing else "none is installed"
        return Check(name="models", passed=False, message=f"{what}; run: parallelix-node models pull {name}")
    return Check(name="models", passed=True, message=", ".join(wanted or installed))


def check_exposure(url: str, addresses: Iterable[str] | None = None) -> Check:
    """Whether Ollama's port answers on an address that other machines can reach: it knows no password.

    `addresses` are this machine's own, asked from the system by default.
    """
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)
    if not is_loopback(host):
        message = f"{url} is not on the loopback; run Ollama here and set ollama_url to http://127.0.0.1:{port}"
        return Check(name="loopback", passed=False, message=message)
    for address in list(own_addresses() if addresses is None else addresses)[:ADDRESSES_MAX]:
        if _answers(address, port):
            message = (
                f"port {port} answers on {address}, for anybody there; set OLLAMA_HOST=127.0.0.1:{port} for Ollama"
            )
            return Check(name="loopback", passed=False, message=message)
    return Check(name="loopback", passed=True, message=f"port {port} is closed to other machines")


async def check_coordinator(base_url: str, client: httpx.AsyncClient, *, now: Callable[[], float]) -> list[Check]:
    """Whether `{base_url}/healthz` answers, and how far this clock is from its Date. `now` is Unix seconds."""
    import httpx

    url = f"{base_url}/healthz"
    try:
        before = now()
        answer = await client.get(url, timeout=HTTP_SECONDS_MAX, follow_redirects=False)
        after = now()
    except httpx.HTTPError as error:
        what = str(error) or type(error).__name__
        message = f"{url}: {what}; check the network, and `coordinator` in config.toml"
        return [Check(name="coordinator", passed=False, message=message)]
    if answer.status_code != 200:
        message = f"{url} answered {answer.status_code}, expected 200; check `coordinator` in config.toml"
        return [Check(name="coordinator", passed=False, message=message)]
    return [
        Check(name="coordinator", passed=True, message=f"{base_url} answers"),
        *_check_clock(answer.headers.get("date", ""), (before + after) / 2),
    ]


async def run_checks(home: Home, *, client_version: str) -> list[Check]:
    """All of them, in the order in which they are printed."""
    import time

    import httpx

    first = [check_versions(client_version), check_keys(home)]
    try:
        config = load_config(home)
    except NodeError as error:
        return [*first, Check(name="config", passed=False, message=error.message)]
    async with httpx.AsyncClient() as client:
        coordinator, local = await asyncio.gather(
            check_coordinator(config.coordinator, client, now=time.time), _check_local(config)
        )
    return [*first, *local, *coordinator]


async def _check_local(config: Config) -> list[Check]:
    try:
        async with open_runtime(config) as runtime:
            found = await check_runtime(runtime)
            answers = all(check.passed or check.warning for check in found)
            if config.runtime == "ollama":
                found.append(await asyncio.to_thread(check_exposure, config.ollama_url))
            if answers:
                found.append(await check_models(runtime, config.models))
            return found
    except (NodeError, RuntimeFailed) as error:
        return [Check(name=config.runtime, passed=False, message=str(error))]


def is_installed(wanted: str, installed: Iterable[str]) -> bool:
    """Ollama's names carry a tag, `latest` where none is given."""
    return any(wanted in (name, name.removesuffix(":latest")) or f"{wanted}:latest" == name for name in installed)


def own_addresses() -> list[str]:
    """This machine's addresses that are not on the loopback."""
    import psutil

    found: list[str] = []
    for entries in psutil.net_if_addrs().values():
        for entry in entries:
            if entry.family in (socket.AF_INET, socket.AF_INET6):
                found.append(entry.address)
    return [address for address in found if not is_loopback(address.partition("%")[0])]


def _answers(address: str, port: int) -> bool:
    try:
        with socket.create_connection((address, port), timeout=CONNECT_SECONDS_MAX):
            return True
    except OSError:
        return False


def _check_clock(date: str, local_seconds: float) -> list[Check]:
    try:
        offset = local_seconds - parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return []
    # A Date is cut to whole seconds.
    rounded = math.floor(offset)
    if abs(rounded) > CLOCK_SECONDS_MAX:
        message = (
            f"{rounded:+d} s from the coordinator's, at most {CLOCK_SECONDS_MAX} s; switch time synchronisation on"
        )
        return [Check(name="clock", passed=False, message=message)]
    return [Check(name="clock", passed=True, message=f"{rounded:+d} s from the coordinator's")]
