"""What the network says of this node, for `status`: also when no daemon runs, and as last heard when nobody answers.

Asked is the chain itself where `config.toml` names a deployment file and an endpoint, else the coordinator. What they
say is kept in `network.json`, with the time, for the day on which neither answers.
"""

from __future__ import annotations

import asyncio
import os
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
from msgspec import Meta

from parallelix import private_files
from parallelix.node.config import Config
from parallelix.node.home import Home
from parallelix.node.state import State
from parallelix.protocol import messages

if TYPE_CHECKING:
    import httpx

OK = 200
ASK_SECONDS_MAX = 3.0
"""An operator waits for `status`; a coordinator answers this at once."""
ANSWER_BYTES_MAX = 64 * 1024
RPC_VARIABLES = ("PARALLELIX_RPC_URL", "PARALLELIX_RPC")
LOCKER, REWARDS = "NodeRegistryLocker", "OperatorStakeRewardsV2"
CHAIN_STATES: dict[int, Literal["unknown", "active", "cooling", "retired"]] = {
    0: "unknown",
    1: "active",
    2: "cooling",
    3: "retired",
}
"""As the locker counts them."""
_LAST_SECOND = int(datetime.max.replace(tzinfo=UTC).timestamp()) - 1


class Heard(msgspec.Struct, frozen=True, kw_only=True):
    """`at` is when, Unix milliseconds by this machine's clock; `source` who said it."""

    standing: messages.Standing
    source: Literal["chain", "coordinator"]
    at: Annotated[int, Meta(ge=0)]


class NotHeard(Exception):
    """Nobody could be asked now; the message says who, and why."""


def hear(home: Home, config: Config, node_id: str) -> tuple[Heard | None, str]:
    """What is known, and why it is not of now: empty where it is. None where nothing was ever heard of this node."""
    try:
        heard = asyncio.run(_ask(config, node_id))
    except NotHeard as error:
        return _remembered(home, config, node_id), str(error)
    _remember(home, heard)
    return heard, ""


def state_of(stored: State, standing: messages.Standing) -> State:
    """The node's state where the registry knows better than this machine, which may have been off meanwhile."""
    match standing.state:
        case "cooling":
            return State.COOLING
        case "active":
            # Staked anew, perhaps; whether it serves is for a daemon to say.
            return State.INITED if stored in (State.COOLING, State.RETIRED) else stored
        case "retired":
            return State.RETIRED
        case "unknown":
            return stored if stored in (State.FRESH, State.INITED) else State.RETIRED


def reason_of(standing: messages.Standing) -> str:
    """Why it is not active; empty where it is."""
    match standing.state:
        case "cooling":
            return f"its stake is withdrawable from {_date(standing.cooldown_ends_at)}"
        case "retired":
            return "its stake was withdrawn"
        case "unknown":
            return "it is not registered on this network"
        case "active":
            return ""


def contracts_of(heard: Heard | None) -> dict[str, str]:
    """The contracts that concern an operator."""
    known = heard.standing.contracts if heard is not None else {}
    return {name: known[name] for name in (LOCKER, REWARDS) if name in known}


async def _ask(config: Config, node_id: str) -> Heard:
    rpc_url = config.rpc_url or next(filter(None, map(os.environ.get, RPC_VARIABLES)), "")
    ask_chain = config.deployment_file and rpc_url
    try:
        async with asyncio.timeout(ASK_SECONDS_MAX):
            if ask_chain:
                standing = await _from_chain(Path(config.deployment_file), rpc_url, int(node_id))
            else:
                standing = await _from_coordinator(config.coordinator, node_id)
    except TimeoutError as error:
        raise NotHeard(f"the {'chain' if ask_chain else 'coordinator'} did not answer in time") from error
    return Heard(standing=standing, source="chain" if ask_chain else "coordinator", at=_now_ms())


async def _from_coordinator(base_url: str, node_id: str) -> messages.Standing:
    import httpx

    try:
        async with (
            httpx.AsyncClient() as http,
            http.stream("GET", f"{base_url}/operator/standing", params={"nodeId": node_id}) as answer,
        ):
            body = await _bounded(answer)
    except (httpx.HTTPError, OSError) as error:
        raise NotHeard("the coordinator did not answer") from error
    if answer.status_code != OK:
        raise NotHeard(f"the coordinator answered {answer.status_code}")
    try:
        standing = msgspec.json.decode(body, type=messages.Standing)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise NotHeard("the coordinator's answer was not understood") from error
    if standing.node_id != node_id:
        raise NotHeard("the coordinator answered for another node")
    return standing


async def _bounded(answer: httpx.Response) -> bytes:
    parts = bytearray()
    async for part in answer.aiter_bytes():
        parts += part
        if len(parts) > ANSWER_BYTES_MAX:
            raise NotHeard(f"the coordinator's answer is longer than {ANSWER_BYTES_MAX} bytes")
    return bytes(parts)


async def _from_chain(file: Path, rpc_url: str, node_id: int) -> messages.Standing:
    try:
        from parallelix.chain import deployment_file
        from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerViews
        from parallelix.chain.deployment import require_chain
        from parallelix.chain.errors import ChainError
        from parallelix.chain.rpc import connected
    except ModuleNotFoundError as error:
        raise NotHeard("reading the chain needs: pip install 'parallelix[chain]'") from error
    try:
        deployment = deployment_file.read(file)
        if deployment is None:
            raise NotHeard(f"{file}: there is no such deployment file")
        async with connected(rpc_url, tries=1) as rpc:
            await require_chain(rpc, deployment)
            block = await rpc.block_number()
            views = NodeRegistryLockerViews(rpc, deployment.address(LOCKER), block=block)
            node = await views.nodes(node_id)
    except ChainError as error:
        raise NotHeard(f"the chain was not read: {error.message}") from error
    state = CHAIN_STATES.get(node.state, "unknown")
    return messages.Standing(
        node_id=str(node_id),
        state=state,
        cooldown_ends_at=node.withdrawable_at if state == "cooling" else 0,
        hardware_tier=node.hardware_tier,
        node_key_hash="0x" + node.node_key_hash.hex() if state != "unknown" else "",
        chain_id=deployment.chain_id,
        contracts={name: entry.address for name, entry in deployment.contracts.items()},
        block=block,
        server_time=_now_ms(),
    )


def _remember(home: Home, heard: Heard) -> None:
    try:
        private_files.replace(home.network, msgspec.json.encode(heard) + b"\n", durable=False)
    except (OSError, private_files.PrivateFileRefused):
        # A disk that is full must not hide what was heard just now.
        return


def _remembered(home: Home, config: Config, node_id: str) -> Heard | None:
    try:
        heard = msgspec.json.decode(private_files.read(home.network), type=Heard)
    except (OSError, private_files.PrivateFileRefused, msgspec.DecodeError, UnicodeDecodeError):
        return None
    # Of another node, or of another network that this folder was used on.
    fits = heard.standing.node_id == node_id and heard.standing.chain_id == config.chain_id
    return heard if fits else None


def _date(unix_seconds: int) -> str:
    if not 0 < unix_seconds <= _LAST_SECOND:
        return "the end of its cooldown"
    return datetime.fromtimestamp(unix_seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _now_ms() -> int:
    return int(time.time() * 1000)
