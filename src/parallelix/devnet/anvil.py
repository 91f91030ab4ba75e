"""anvil, a whole Ethereum chain in one process of this machine: where it is found, and one that keeps its blocks.

`make setup-chain` puts it, and Sablier's compiled contracts, into the cache that is looked at here.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Mapping
from pathlib import Path

from parallelix.chain.errors import ChainUnreachable
from parallelix.chain.rpc import Rpc, connected
from parallelix.devnet.processes import Child, ProcessError

VERSION = "1.7.1"
"""Chains differ from version to version, so another one on PATH is not used."""
SABLIER_VERSIONS = "4.0.1-2.0.1"
"""Of `@sablier/lockup` and of the `@sablier/evm-utils` that it names."""
HARDFORK = "prague"
STATES_KEPT = 64
"""Views are asked at blocks no older than a poll or two; each state is a copy of all that the contracts hold."""
START_SECONDS = 60.0
POLL_SECONDS = 0.02


class ChainMissing(Exception):
    """There is no anvil to start; the message says how to get one, or how to do without."""


def find_anvil(environ: Mapping[str, str]) -> Path:
    """The program that ANVIL_BIN names, else the one in the cache. Raises `ChainMissing`."""
    named = environ.get("ANVIL_BIN", "")
    if named:
        if os.access(named, os.X_OK) and Path(named).is_file():
            return Path(named)
        raise ChainMissing(f"ANVIL_BIN={named} is no program that can be run; correct or unset it")
    cached = _cache(environ) / "anvil" / VERSION / "anvil" / "bin" / "anvil"
    if os.access(cached, os.X_OK):
        return cached
    raise ChainMissing(
        f"no anvil {VERSION}, the chain of a devnet: run `make setup-chain` in a clone, or let ANVIL_BIN name one from"
        " https://getfoundry.sh; or give --no-chain for a network without stakes and deposits"
    )


def find_sablier(environ: Mapping[str, str]) -> Path | None:
    """The folder of Sablier's npm packages in the cache, where they are."""
    folder = _cache(environ) / "sablier" / SABLIER_VERSIONS
    return folder if folder.is_dir() else None


def _cache(environ: Mapping[str, str]) -> Path:
    home = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "parallelix"


class Anvil:
    """One chain, whose blocks lie in `folder` while it does not run.

    A transaction gets a block at once, and there is a block each `block_seconds` besides.
    """

    def __init__(self, program: Path, folder: Path, *, port: int, block_seconds: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.process: Child | None = None
        self._program = program
        self._folder = folder
        self._port = port
        self._block_seconds = block_seconds

    async def start(self) -> None:
        """Returns when it answers. Raises `ProcessError`. Call it in the main thread."""
        self._folder.mkdir(mode=0o700, exist_ok=True)
        command = [str(self._program), "--quiet", "--host", "127.0.0.1", "--port", str(self._port)]
        command += ["--hardfork", HARDFORK, "--block-time", str(self._block_seconds), "--mixed-mining"]
        command += ["--state", str(self._folder / "anvil.json"), "--preserve-historical-states"]
        command += ["--prune-history", str(STATES_KEPT)]
        # When we are killed it still gets to write down its blocks, without which the coordinator's store is ahead.
        self.process = Child("anvil", command, output=self._folder / "anvil.out", gentle=True)
        async with connected(self.url, tries=1) as rpc:
            await self._answers(rpc)
            await _go_on_in_time(rpc)

    async def pass_time(self, seconds: int) -> None:
        """Puts the chain's clock forward."""
        async with connected(self.url) as rpc:
            await rpc.request("evm_increaseTime", seconds)
            await rpc.request("evm_mine")

    async def stop(self) -> None:
        if self.process is not None:
            await self.process.stopped()

    async def _answers(self, rpc: Rpc) -> None:
        process = self.process
        assert process is not None
        for _ in range(round(START_SECONDS / POLL_SECONDS)):
            if not process.running:
                raise ProcessError(f"anvil ended with {process.exit_code}:\n{process.tail()}")
            with contextlib.suppress(ChainUnreachable):
                await rpc.chain_id()
                return
            await asyncio.sleep(POLL_SECONDS)
        raise ProcessError(f"anvil gave no answer within {START_SECONDS:g} s:\n{process.tail()}")


async def _go_on_in_time(rpc: Rpc) -> None:
    """A chain whose clock was put forward would go on at the machine's, before its own last block."""
    ahead_seconds = await rpc.block_time() - round(time.time())
    if ahead_seconds > 0:
        await rpc.request("evm_increaseTime", ahead_seconds + 1)
