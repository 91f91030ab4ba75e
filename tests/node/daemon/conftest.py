from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import pytest_asyncio
from running_daemon import NODE_ID, RunningDaemon, StartDaemon, settings_for
from scripted_coordinator import ScriptedCoordinator
from scripted_runtime import ScriptedRuntime

from parallelix.node import keys
from parallelix.node.daemon import run_daemon
from parallelix.node.home import Home
from parallelix.node.logging import open_log
from parallelix.node.runtimes import base


@pytest.fixture(scope="session")
def finished_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's folder after `init`, made once: two RSA keys take a second."""
    home = Home(tmp_path_factory.mktemp("node") / ".parallelix")
    keys.create_keys(home, replace=False, config=None)
    return home.root


@pytest.fixture(scope="session")
def node_keys(finished_home: Path) -> keys.NodeKeys:
    return keys.load_keys(Home(finished_home))


@pytest.fixture
def home(finished_home: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished_home, tmp_path / ".parallelix"))


@pytest_asyncio.fixture
async def coordinator() -> AsyncIterator[ScriptedCoordinator]:
    coordinator = ScriptedCoordinator(node_id=NODE_ID)
    await coordinator.start()
    yield coordinator
    await coordinator.stop()
    assert not coordinator.broken


@pytest.fixture
def runtime() -> ScriptedRuntime:
    return ScriptedRuntime()


@pytest.fixture
def start_daemon(
    coordinator: ScriptedCoordinator, home: Path, node_keys: keys.NodeKeys, runtime: ScriptedRuntime
) -> StartDaemon:
    """`async with start_daemon() as daemon`: attached, and cancelled at the end if it still runs."""

    @asynccontextmanager
    async def start(
        *, attached: bool = True, runtime: base.Runtime = runtime, **changes: object
    ) -> AsyncGenerator[RunningDaemon]:
        open_log(Home(home))
        daemon = RunningDaemon(home=home)
        task = daemon.task = asyncio.create_task(
            run_daemon(
                settings_for(coordinator, home, **changes),
                keys=node_keys,
                runtime=runtime,
                on_event=daemon.hear,
            )
        )
        try:
            if attached:
                await coordinator.attached()
            yield daemon
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    return start
