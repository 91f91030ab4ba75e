from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from parallelix.devnet.processes import Child

SLEEPER = "import time; print('up', flush=True); time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(15, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("up", flush=True)
import time; time.sleep(600)
"""
LINUX_ONLY = pytest.mark.skipif(sys.platform != "linux", reason="what follows a killed parent is Linux's own")


def child(folder: Path, program: str, **options: object) -> Child:
    folder.mkdir(exist_ok=True)
    started = Child("a child", [sys.executable, "-c", program], output=folder / "out", **options)  # type: ignore[arg-type]
    wait_until(lambda: (folder / "out").read_text() != "" or not started.running)
    return started


def wait_until(holds: object) -> None:
    assert callable(holds)
    ends_at = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < ends_at
        time.sleep(0.02)


async def test_a_child_is_stopped_and_says_how_it_ended(tmp_path: Path) -> None:
    sleeper = child(tmp_path, SLEEPER)
    assert sleeper.running and sleeper.exit_code is None

    assert await sleeper.stopped() == -signal.SIGTERM
    assert not sleeper.running and sleeper.tail() == "up"


async def test_a_child_that_does_not_stop_is_killed_with_all_it_started(tmp_path: Path) -> None:
    stubborn = child(tmp_path, STUBBORN)
    assert await stubborn.stopped(seconds=0.2) == -signal.SIGKILL

    parent = child(tmp_path / "another", PARENT)
    (grandchild,) = psutil.Process(parent.pid).children()
    await parent.stopped()
    wait_until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE)


def test_a_killed_child_is_gone_when_the_call_returns(tmp_path: Path) -> None:
    sleeper = child(tmp_path, SLEEPER)
    sleeper.kill()

    assert sleeper.exit_code == -signal.SIGKILL
    sleeper.send(signal.SIGTERM)


async def test_ctrl_c_at_the_terminal_reaches_the_parent_alone(tmp_path: Path) -> None:
    sleeper = child(tmp_path, SLEEPER)

    assert os.getpgid(sleeper.pid) != os.getpgid(0)
    await sleeper.stopped()


@LINUX_ONLY
def test_a_child_dies_when_its_parent_is_killed(tmp_path: Path) -> None:
    program = f"""
import time
from pathlib import Path
from parallelix.devnet.processes import Child
print(Child("x", ["sleep", "600"], output=Path({str(tmp_path / "out")!r})).pid, flush=True)
time.sleep(600)
"""
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    sleeper = psutil.Process(int(parent.stdout.readline()))
    wait_until(lambda: sleeper.name() == "sleep")

    parent.kill()
    parent.wait()
    parent.stdout.close()

    wait_until(lambda: not sleeper.is_running() or sleeper.status() == psutil.STATUS_ZOMBIE)


@LINUX_ONLY
async def test_a_child_stays_on_the_processors_it_was_given(tmp_path: Path) -> None:
    last = max(os.sched_getaffinity(0))
    sleeper = child(tmp_path, SLEEPER, cpus=[last], environment={"SAID": "so"})

    assert os.sched_getaffinity(sleeper.pid) == {last}
    assert psutil.Process(sleeper.pid).environ()["SAID"] == "so"
    await sleeper.stopped()
