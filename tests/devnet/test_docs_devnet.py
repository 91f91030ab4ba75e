"""`docs/devnet.md` names every metric and, with `docs/chain.md`, every setting; what it tells to copy works."""

from __future__ import annotations

import re
import shlex
import sqlite3
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

import services
from parallelix.coordinator import registry_file
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.settings import CoordinatorSettings
from parallelix.devnet import cli
from parallelix.devnet.evidence import CONTROLS
from parallelix.devnet.faults import Fault
from parallelix.engine import catalogue
from parallelix.protocol.messages import RESULT_BYTES_MAX

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGE = (DOCS / "devnet.md").read_text()
SETTINGS = PAGE + (DOCS / "chain.md").read_text()


def block(language: str, holding: str) -> str:
    (found,) = (each for each in re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL) if holding in each)
    return found


FIELDS = [field for field in msgspec.structs.fields(CoordinatorSettings) if field.default is not msgspec.NODEFAULT]


@pytest.mark.parametrize("field", FIELDS, ids=lambda field: field.name)
def test_every_setting_has_its_row_with_its_default(field: msgspec.structs.FieldInfo) -> None:
    (told,) = re.findall(rf"^\| `{field.name}` \|(.*?)\|", SETTINGS, re.MULTILINE)
    default = f"{field.default:g}" if isinstance(field.default, float) else str(field.default)

    assert told.strip(" `").lower() == default.lower()


def test_every_metric_has_its_row_and_no_other() -> None:
    told = set(re.findall(r"`(parallelix_[a-z_]+?)(?:_total)?(?:\{[a-z]+\})?`", PAGE))
    there = {family.name for family in Metrics().registry.collect()}

    assert {name for name in told if "==" not in name} == there


def test_the_examples_are_read_as_they_stand() -> None:
    found = catalogue.parse(block("toml", "[[models]]"))
    assert found.models[0].name == "llama3.2" and found.factors.tier_4 == found.factors.urgent == 20_000
    assert registry_file.parse(block("json", "node_id").encode()).keys() == {4217}
    assert f"{RESULT_BYTES_MAX // 2**20} MiB" in PAGE


def test_options_faults_and_controls_are_those_there_are() -> None:
    (up,) = (command for command in cli.app.registered_commands if command.callback is cli.up)
    assert up.callback is not None
    for option in ("--folder", "--port", "--nodes", "--no-chain", "--json"):
        assert f"| `{option}" in PAGE
    assert all(f"`{fault}`" in PAGE for fault in Fault)
    assert len(CONTROLS) == 15 and "fifteen faults" in PAGE


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    analyse = services.systemd_analyze()
    unit = block("ini", "ExecStart").replace("/opt/parallelix/bin/parallelix", sys.executable)
    (tmp_path / "parallelix-coordinator.service").write_text(unit.replace("User=parallelix\n", ""))

    done = subprocess.run(
        [analyse, "verify", str(tmp_path / "parallelix-coordinator.service")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert [line for line in done.stderr.splitlines() if "parallelix-coordinator" in line] == []
    assert done.returncode == 0, done.stderr


def test_the_backup_of_a_store_in_use_is_whole(tmp_path: Path) -> None:
    live = sqlite3.connect(tmp_path / "coordinator.db")
    live.execute("PRAGMA journal_mode = wal")
    live.execute("CREATE TABLE records (sequence)")
    live.execute("INSERT INTO records VALUES (7)")
    live.commit()
    (line,) = (each for each in block("sh", "VACUUM INTO").splitlines() if "VACUUM INTO" in each)
    program = shlex.split(line)[-1].replace("/backup/", f"{tmp_path}/copy-")

    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)

    assert sqlite3.connect(tmp_path / "copy-coordinator.db").execute("SELECT * FROM records").fetchall() == [(7,)]
