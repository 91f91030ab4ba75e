from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from node_worlds import H100, Nvml, NvmlCard

from parallelix.node.probe import (
    Cpu,
    Gpu,
    Machine,
    describe_cpu,
    describe_gpus,
    probe_amd,
    probe_apple,
    probe_cpu,
    probe_nvidia,
    run_command,
    tier_of,
)

CPU = Cpu(name="AMD EPYC", cores=16, memory_mib=131_072)


def nvidia(*cards: NvmlCard, driver: bool = True) -> Machine:
    return Machine(gpus=probe_nvidia(Nvml(list(cards), driver=driver), memory_mib=CPU.memory_mib), cpu=CPU)


@pytest.mark.parametrize(
    ("usable_mib", "tier"),
    [
        (0, 1),
        (512, 1),
        (3071, 1),
        (3072, 2),
        (16_384, 2),
        (22_888, 2),
        (22_889, 3),
        (24_576, 3),
        (68_664, 3),
        (68_665, 4),
        (81_559, 4),
    ],
)
def test_tiers_by_usable_memory(usable_mib: int, tier: int) -> None:
    assert tier_of(usable_mib) == tier


@pytest.mark.parametrize(
    ("name", "reported_mib", "described", "tier"),
    [
        ("NVIDIA H100 80GB HBM3", 81_559, "NVIDIA H100 · 80 GB VRAM", 4),
        ("NVIDIA A100-SXM4-80GB", 81_920, "NVIDIA A100-SXM4-80GB · 80 GB VRAM", 4),
        ("NVIDIA H200", 143_771, "NVIDIA H200 · 141 GB VRAM", 4),
        ("NVIDIA L40S", 46_068, "NVIDIA L40S · 48 GB VRAM", 3),
        ("NVIDIA GeForce RTX 4090", 24_564, "NVIDIA GeForce RTX 4090 · 24 GB VRAM", 3),
        ("NVIDIA L4", 23_034, "NVIDIA L4 · 24 GB VRAM", 3),
        ("NVIDIA GeForce RTX 4080", 16_376, "NVIDIA GeForce RTX 4080 · 16 GB VRAM", 2),
        ("Tesla T4", 15_360, "Tesla T4 · 16 GB VRAM", 2),
        ("NVIDIA GeForce GTX 1650", 4_096, "NVIDIA GeForce GTX 1650 · 4 GB VRAM", 2),
    ],
)
def test_nvidia_cards_as_their_driver_reports_them(name: str, reported_mib: int, described: str, tier: int) -> None:
    machine = nvidia(NvmlCard(name, reported_mib))
    assert (describe_gpus(machine), machine.tier) == (described, tier)
    assert machine.usable_vram_mib == reported_mib


def test_several_cards_add_up() -> None:
    machine = nvidia(*[NvmlCard("NVIDIA GeForce RTX 3090", 24_576)] * 3)
    assert (describe_gpus(machine), machine.tier) == ("3 × NVIDIA GeForce RTX 3090 · 24 GB VRAM", 4)


def test_cards_of_two_makers_do_not_add_up() -> None:
    nvidia = Gpu(name="A", vendor="nvidia", memory_mib=16_384, usable_mib=16_384)
    amd = Gpu(name="B", vendor="amd", memory_mib=16_384, usable_mib=16_384)
    machine = Machine(gpus=(nvidia, amd), cpu=CPU)
    assert (machine.usable_vram_mib, machine.tier) == (16_384, 2)


def test_a_card_cut_into_slices_counts_as_its_largest_slice() -> None:
    machine = nvidia(NvmlCard(H100.name, 81_559, slices_mib=[9_984, 20_096]))
    assert (machine.usable_vram_mib, machine.tier) == (20_096, 2)


def test_a_board_that_shares_memory_with_its_cpu_may_use_three_quarters() -> None:
    machine = nvidia(NvmlCard("NVIDIA GB10", None))
    assert (machine.usable_vram_mib, machine.tier) == (98_304, 4)


def test_without_a_driver_or_its_library_there_is_no_such_card() -> None:
    assert nvidia(H100, driver=False).tier == 1
    assert probe_nvidia(None, memory_mib=1024) == ()
    assert describe_gpus(nvidia()) == "none"


def amd_card(sysfs: Path, name: str, **files: str) -> None:
    device = sysfs / "class" / "drm" / name / "device"
    device.mkdir(parents=True)
    for file, text in files.items():
        (device / file).write_text(text + "\n")


def test_amd_cards_are_read_from_the_kernels_files(tmp_path: Path) -> None:
    memory, name = "25753026560", "Radeon RX 7900 XTX"
    amd_card(tmp_path, "card0", vendor="0x1002", device="0x744c", mem_info_vram_total=memory, product_name=name)
    amd_card(tmp_path, "card1", vendor="0x8086", device="0x56a0", mem_info_vram_total="17163091968")
    amd_card(tmp_path, "card2", vendor="0x1002", device="0x164e")
    amd_card(tmp_path, "card0-DP-1")
    machine = Machine(gpus=probe_amd(tmp_path), cpu=CPU)
    assert describe_gpus(machine) == "AMD Radeon RX 7900 XTX · 24 GB VRAM"
    assert machine.tier == 3


def test_an_amd_graphics_unit_with_a_little_memory_is_tier_1(tmp_path: Path) -> None:
    amd_card(tmp_path, "card0", vendor="0x1002", device="0x1681", mem_info_vram_total="536870912")
    machine = Machine(gpus=probe_amd(tmp_path), cpu=CPU)
    assert (describe_gpus(machine), machine.has_gpu, machine.tier) == ("AMD Radeon (0x1681) · 0 GB VRAM", False, 1)


def sysctl(values: dict[str, str]) -> object:
    def run(command: Sequence[str]) -> str:
        assert command[:2] == ["sysctl", "-n"]
        return values.get(command[2], "")

    return run


@pytest.mark.parametrize(
    ("gigabytes", "described", "usable_mib", "tier"),
    [
        (16, "Apple M2 · 16 GB unified memory", 12_288, 2),
        (36, "Apple M2 · 36 GB unified memory", 27_648, 3),
        (128, "Apple M2 · 128 GB unified memory", 98_304, 4),
    ],
)
def test_apple_silicon_may_use_three_quarters_of_its_memory(
    gigabytes: int, described: str, usable_mib: int, tier: int
) -> None:
    values = {
        "hw.optional.arm64": "1\n",
        "hw.memsize": f"{gigabytes * 1024**3}\n",
        "machdep.cpu.brand_string": "Apple M2\n",
    }
    machine = Machine(gpus=probe_apple(sysctl(values), CPU), cpu=CPU)  # pyright: ignore[reportArgumentType]
    assert (describe_gpus(machine), machine.usable_vram_mib, machine.tier) == (described, usable_mib, tier)


def test_a_mac_with_an_intel_processor_has_no_usable_gpu() -> None:
    assert probe_apple(sysctl({"hw.memsize": "17179869184"}), CPU) == ()  # pyright: ignore[reportArgumentType]


def test_the_real_processor_is_described() -> None:
    cpu = probe_cpu()
    assert cpu.cores >= 1 and cpu.memory_mib > 0 and cpu.name
    assert describe_cpu(CPU) == "AMD EPYC · 16 cores · 128 GB RAM"


def test_a_program_that_is_missing_or_fails_says_nothing() -> None:
    assert run_command(["/nonexistent/program"]) == ""
    assert run_command(["false"]) == ""
    assert run_command(["echo", "1"]) == "1\n"
