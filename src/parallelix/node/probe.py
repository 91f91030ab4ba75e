"""What this machine has, and the tier it maps to.

    tier 1   CPU, or a GPU too small for the default model
    tier 2   GPU below 24 GB of usable memory
    tier 3   GPU from 24 GB
    tier 4   GPU from 72 GB (an "80 GB" card reports 79.6 GiB)

GB here is 10^9 bytes: cards sold as 24 GB report from 22.5 GiB (with error correction) to 24 GiB, all of them at least
24 * 10^9 bytes. The memory of several GPUs of one maker is added up, because the runtimes spread a model over them.
NVIDIA is asked through NVML, AMD through the kernel's sysfs, Apple through sysctl; a missing driver means no such GPU.
"""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

Vendor: TypeAlias = Literal["nvidia", "amd", "apple"]
RunCommand: TypeAlias = Callable[[Sequence[str]], str]

MIB = 1024 * 1024
UNIFIED_SHARE = 0.75
"""What macOS lets a GPU have of memory that it shares with the CPU."""
GPU_USABLE_MIB_MIN = 3 * 1024
"""llama3.2, the default model, needs 2 GiB for its weights and the rest for its context."""
TIER_BYTES = ((72 * 10**9, 4), (24 * 10**9, 3))
TIER_LABELS = {1: "CPU", 2: "GPU · consumer", 3: "GPU · workstation", 4: "GPU · datacenter"}
SIZES_ON_THE_BOX = (4, 6, 8, 10, 11, 12, 16, 20, 24, 32, 40, 48, 64, 72, 80, 94, 96, 128, 141, 180, 192, 256, 288)
RESERVED_SHARE_MAX = 0.07
"""Error correction takes a sixteenth of the memory that is printed on the box, drivers a little."""
COMMAND_SECONDS_MAX = 10

_AMD = "0x1002"
_MEMORY_IN_NAME = re.compile(r"\s+\d+\s?GB\b.*$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """`usable_mib` is what a model may occupy."""

    name: str
    vendor: Vendor
    memory_mib: int
    usable_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cpu:
    name: str
    cores: int
    memory_mib: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    gpus: tuple[Gpu, ...]
    cpu: Cpu

    @property
    def usable_vram_mib(self) -> int:
        """Of the maker with the most of it."""
        vendors = {gpu.vendor for gpu in self.gpus}
        return max((sum(gpu.usable_mib for gpu in self.gpus if gpu.vendor == vendor) for vendor in vendors), default=0)

    @property
    def has_gpu(self) -> bool:
        return self.usable_vram_mib >= GPU_USABLE_MIB_MIN

    @property
    def tier(self) -> int:
        return tier_of(self.usable_vram_mib)


def tier_of(usable_vram_mib: int) -> int:
    if usable_vram_mib < GPU_USABLE_MIB_MIN:
        return 1
    return next((tier for least, tier in TIER_BYTES if usable_vram_mib * MIB >= least), 2)


def probe_machine() -> Machine:
    """Asks the real machine. Never raises: what cannot be asked is not there."""
    cpu = probe_cpu()
    if sys.platform == "darwin":
        return Machine(gpus=probe_apple(run_command, cpu), cpu=cpu)
    return Machine(gpus=(*probe_nvidia(_nvml(), memory_mib=cpu.memory_mib), *probe_amd(Path("/sys"))), cpu=cpu)


def probe_nvidia(nvml: Any, *, memory_mib: int) -> tuple[Gpu, ...]:
    """`nvml` is the module pynvml, or None. A GPU without memory of its own (Grace, Jetson) shares `memory_mib`."""
    if nvml is None:
        return ()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:
        return ()
    try:
        handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
        return tuple(_nvidia_gpu(nvml, handle, memory_mib) for handle in handles)
    except nvml.NVMLError:
        return ()
    finally:
        nvml.nvmlShutdown()


def probe_amd(sysfs: Path) -> tuple[Gpu, ...]:
    """Through the amdgpu driver's files; a part of system memory that firmware sets aside counts as memory."""
    found = [_amd_gpu(card) for card in sorted(sysfs.glob("class/drm/card[0-9]*/device"))]
    return tuple(gpu for gpu in found if gpu is not None)


def probe_apple(run: RunCommand, cpu: Cpu) -> tuple[Gpu, ...]:
    """Apple silicon's GPU shares the memory; Macs with Intel processors have none that the runtimes use."""
    if run(["sysctl", "-n", "hw.optional.arm64"]).strip() != "1":
        return ()
    memory_mib = _integer(run(["sysctl", "-n", "hw.memsize"])) // MIB
    name = run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or cpu.name or "Apple silicon"
    return (Gpu(name=name, vendor="apple", memory_mib=memory_mib, usable_mib=int(memory_mib * UNIFIED_SHARE)),)


def probe_cpu(cpuinfo: Path = Path("/proc/cpuinfo"), run: RunCommand | None = None) -> Cpu:
    import psutil

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return Cpu(
        name=_cpu_name(cpuinfo, run or run_command), cores=cores, memory_mib=psutil.virtual_memory().total // MIB
    )


def run_command(command: Sequence[str]) -> str:
    """What a program of the system prints; nothing when it is missing, fails or hangs."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, timeout=COMMAND_SECONDS_MAX, check=False, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout if done.returncode == 0 else ""


def size_on_the_box(memory_mib: int) -> int:
    """The GB that a card is sold with, from what it reports."""
    reported = memory_mib / 1024
    return next(
        (size for size in SIZES_ON_THE_BOX if reported <= size <= reported / (1 - RESERVED_SHARE_MAX)), round(reported)
    )


def describe_gpus(machine: Machine) -> str:
    """`NVIDIA H100 · 80 GB VRAM`, `2 × …` for equal ones, `none` without any."""
    kinds: dict[tuple[str, int, Vendor], int] = {}
    for gpu in machine.gpus:
        kind = (gpu.name, size_on_the_box(gpu.memory_mib), gpu.vendor)
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(_describe(kind, count) for kind, count in kinds.items()) or "none"


def describe_cpu(cpu: Cpu) -> str:
    return f"{cpu.name} · {cpu.cores} {'core' if cpu.cores == 1 else 'cores'} · {round(cpu.memory_mib / 1024)} GB RAM"


def describe_class(machine: Machine) -> str:
    """What a calibration card says of a machine: its GPUs, else its processor, and the tier."""
    what = describe_gpus(machine) if machine.has_gpu else machine.cpu.name
    return f"{what} · tier {machine.tier}"


def _describe(kind: tuple[str, int, Vendor], count: int) -> str:
    name, size, vendor = kind
    times = f"{count} × " if count > 1 else ""
    memory = "unified memory" if vendor == "apple" else "VRAM"
    return f"{times}{_MEMORY_IN_NAME.sub('', name)} · {size} GB {memory}"


def _nvml() -> Any:
    try:
        import pynvml  # pyright: ignore[reportMissingTypeStubs]
    except ImportError:
        return None
    return pynvml


def _nvidia_gpu(nvml: Any, handle: Any, memory_mib: int) -> Gpu:
    name = nvml.nvmlDeviceGetName(handle)
    name = name.decode(errors="replace") if isinstance(name, bytes) else str(name)
    try:
        total = sum(_nvidia_memories(nvml, handle)) // MIB
    except nvml.NVMLError:
        return Gpu(name=name, vendor="nvidia", memory_mib=memory_mib, usable_mib=int(memory_mib * UNIFIED_SHARE))
    return Gpu(name=name, vendor="nvidia", memory_mib=total, usable_mib=total)


def _nvidia_memories(nvml: Any, handle: Any) -> list[int]:
    """Bytes of the card, or of each of its slices when it is cut into some (MIG): a process sees no more than those."""
    slices: list[int] = []
    try:
        current, _pending = nvml.nvmlDeviceGetMigMode(handle)
        count = nvml.nvmlDeviceGetMaxMigDeviceCount(handle) if current else 0
    except nvml.NVMLError:
        count = 0
    for index in range(count):
        try:
            part = nvml.nvmlDeviceGetMigDeviceHandleByIndex(handle, index)
            slices.append(int(nvml.nvmlDeviceGetMemoryInfo(part).total))
        except nvml.NVMLError:
            continue
    # One model runs in one slice: they do not add up as whole cards do.
    return [max(slices)] if slices else [int(nvml.nvmlDeviceGetMemoryInfo(handle).total)]


def _amd_gpu(device: Path) -> Gpu | None:
    if _text(device / "vendor") != _AMD:
        return None
    total = _integer(_text(device / "mem_info_vram_total")) // MIB
    if total == 0:
        return None
    name = _text(device / "product_name") or f"Radeon ({_text(device / 'device')})"
    return Gpu(name=f"AMD {name.removeprefix('AMD ')}", vendor="amd", memory_mib=total, usable_mib=total)


def _cpu_name(cpuinfo: Path, run: RunCommand) -> str:
    if sys.platform == "darwin":
        return run(["sysctl", "-n", "machdep.cpu.brand_string"]).strip() or platform.processor() or "CPU"
    found = re.search(r"^model name\s*:\s*(.+)$", _text(cpuinfo), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine() or "CPU"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return ""


def _integer(text: str) -> int:
    return int(text.strip()) if text.strip().isdecimal() else 0
