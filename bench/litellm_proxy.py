"""LiteLLM's proxy, for comparison: pinned, in an environment of its own, one worker, its logs off, in front of a server
that answers at once.

Its environment is made on the first use (`.venv-litellm`, some 600 MB); it takes some 20 seconds to start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import AsyncGenerator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from bench import openai_backend
from parallelix.devnet.network import free_port
from parallelix.devnet.processes import Child, ProcessError

REPOSITORY = Path(__file__).resolve().parent.parent
UV = REPOSITORY / ".venv-tools" / "bin" / "uv"
ENVIRONMENT = REPOSITORY / ".venv-litellm"
REQUIREMENTS = Path(__file__).with_name("requirements-litellm.txt")
START_SECONDS = 180.0
"""Twenty seconds on a quiet machine; the first start compiles every module."""
POLL_SECONDS = 0.25
MODEL = "instant"

_CONFIG = """\
model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
  - model_name: {broken}
    litellm_params: {{model: openai/{broken}, api_base: "http://127.0.0.1:{port}/v1", api_key: none}}
litellm_settings: {{set_verbose: false, telemetry: false, num_retries: 0}}
general_settings: {{master_key: {master_key}, disable_spend_logs: true}}
"""
_ENVIRONMENT = {
    "LITELLM_LOG": "ERROR",
    "LITELLM_MODE": "PRODUCTION",
    # Its table of prices is in the package; nothing is fetched.
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "NO_PROXY": "127.0.0.1",
    "PYTHONUNBUFFERED": "1",
}


class LiteLLMError(Exception):
    """It could not be installed; the message says what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A running proxy. It can be held still, so that it takes nothing from what else is measured on its core."""

    child: Child
    url: str
    master_key: str
    version: str

    @property
    def pid(self) -> int:
        return self.child.pid

    def hold(self) -> None:
        self.child.send(signal.SIGSTOP)

    def go_on(self) -> None:
        self.child.send(signal.SIGCONT)


def version() -> str:
    """The version that is pinned."""
    lines = REQUIREMENTS.read_text().splitlines()
    return next(line.partition("==")[2] for line in lines if line.startswith("litellm=="))


def install() -> None:
    """Makes its environment what the pins say; quick when it is. Raises `LiteLLMError`."""
    uv_environment = {"UV_SYSTEM_CERTS": "true", **os.environ}
    make = [UV, "venv", "--quiet", "--allow-existing", "--python", sys.executable, ENVIRONMENT]
    fill = [UV, "pip", "install", "--quiet", "--python", ENVIRONMENT, "--requirements", REQUIREMENTS]
    for command in (make, fill):
        try:
            subprocess.run(command, check=True, env=uv_environment, capture_output=True, text=True)
        except FileNotFoundError as error:
            raise LiteLLMError(f"{UV} is not there; run: make setup-env") from error
        except subprocess.CalledProcessError as error:
            raise LiteLLMError(
                f"installing LiteLLM {version()} failed; `--without-litellm` measures without it:\n{error.stderr}"
            ) from error


@asynccontextmanager
async def running(folder: Path, *, cpus: Collection[int], backend_cpus: Collection[int]) -> AsyncGenerator[Proxy]:
    """The proxy and the server behind it. Raises `ProcessError` when either does not start."""
    master_key, port, backend_port = f"sk-{secrets.token_hex(32)}", free_port(), free_port()
    config = folder / "litellm.yaml"
    config.touch(mode=0o600)
    config.write_text(
        _CONFIG.format(model=MODEL, broken=openai_backend.BROKEN, port=backend_port, master_key=master_key)
    )
    backend = Child(
        "backend",
        [sys.executable, "-m", "bench.openai_backend", str(backend_port)],
        output=folder / "backend.out",
        cpus=backend_cpus,
    )
    serve = [str(ENVIRONMENT / "bin" / "litellm"), "--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    proxy = Child(
        "litellm",
        [*serve, "--num_workers", "1", "--telemetry", "False"],
        output=folder / "litellm.out",
        environment=_ENVIRONMENT,
        cpus=cpus,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        await _ready(proxy, f"{url}/health/readiness")
        yield Proxy(child=proxy, url=url, master_key=master_key, version=version())
    finally:
        proxy.send(signal.SIGCONT)
        await asyncio.gather(proxy.stopped(), backend.stopped())


async def _ready(proxy: Child, url: str) -> None:
    ends_at = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False, verify=False, timeout=5) as http:
        while time.monotonic() < ends_at:
            if not proxy.running:
                raise ProcessError(f"LiteLLM ended with {proxy.exit_code}:\n{proxy.tail()}")
            with contextlib.suppress(httpx.HTTPError):
                if (await http.get(url)).status_code == 200:
                    return
            await asyncio.sleep(POLL_SECONDS)
    raise ProcessError(f"LiteLLM was not ready after {START_SECONDS:g} s:\n{proxy.tail()}")
