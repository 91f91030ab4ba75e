"""What commands that ask a chain share: its deployment file, its endpoint, and how its refusals are told.

Which chain and which contracts are meant is what the deployment file says, never what is being checked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

from parallelix.chain import deployment_file
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import ChainError, DeploymentRefused
from parallelix.chain.rpc import Rpc, connected
from parallelix.client.errors import EXIT_FAILED, EXIT_INTERRUPTED, ConfigRefused
from parallelix.terminal import Console

T = TypeVar("T")


def deployment_of(path: Path) -> Deployment:
    """Raises `DeploymentRefused` for a file that is none, or not finished."""
    found = deployment_file.read(path)
    if found is None:
        raise DeploymentRefused(f"{path}: there is no such file; get the network's deployment file")
    if not found.complete:
        raise DeploymentRefused(f"{path}: the deployment is not complete; wait until it is, and get the file again")
    return found


def require_rpc(rpc: str) -> str:
    """Raises `ConfigRefused` without an endpoint."""
    if not rpc:
        raise ConfigRefused("rpc: is missing; give --rpc URL, or set PARALLELIX_RPC_URL, for the chain of --deployment")
    return rpc


def on_chain(rpc: str, work: Callable[[Rpc], Awaitable[T]]) -> T:
    """What `work` gives with the endpoint at `rpc`."""

    async def done() -> T:
        async with connected(rpc) as endpoint:
            return await work(endpoint)

    return asyncio.run(done())


def ended(console: Console, work: Callable[[], int], *, interrupted: str = "") -> int:
    """The exit code, with every refusal of the chain as one line on standard error."""
    try:
        return work()
    except ChainError as error:
        console.clear_live()
        console.error(error.code, error.message)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.clear_live()
        if interrupted:
            console.note(interrupted)
        return EXIT_INTERRUPTED
