"""The settings file and the secrets beside it."""

from __future__ import annotations

from pathlib import Path

import pytest

from parallelix.coordinator import secrets, settings
from parallelix.coordinator.secrets import SecretRefused
from parallelix.coordinator.settings import SettingsError


def test_without_a_file_the_defaults_of_one_machine_hold(tmp_path: Path) -> None:
    found = settings.load(tmp_path)
    assert (found.host, found.port) == ("127.0.0.1", 8400)
    assert found.database_url == f"sqlite:///{tmp_path}/coordinator.db"
    assert (found.registry_path, found.catalogue_path) == (tmp_path / "registry.json", tmp_path / "catalogue.toml")


def test_the_command_line_goes_before_the_file(tmp_path: Path) -> None:
    (tmp_path / "coordinator.toml").write_text('port = 9000\nstore_url = "postgresql://u@h/d"\n')
    found = settings.load(tmp_path, {"port": 9001})
    assert (found.port, found.database_url) == (9001, "postgresql://u@h/d")


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("port = 65536", "<= 65535"),
        ("prot = 8400", "prot"),
        ('port = "8400"', "port"),
        ("port = ", "Invalid value"),
        ("batch_seconds = 0", ">= 0.01"),
        ("batch_seconds = nan", "batch_seconds"),
        ("retention_seconds = 59", ">= 60"),
    ],
)
def test_a_setting_that_cannot_hold_is_refused_by_name(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "coordinator.toml").write_text(text)
    with pytest.raises(SettingsError, match=complaint):
        settings.load(tmp_path)


CHALLENGE_SECONDS = (
    "proof_seconds", "challenge_lead_seconds", "challenge_retry_seconds", "challenge_again_seconds",
)  # fmt: skip


def test_seconds_become_the_engines_milliseconds(tmp_path: Path) -> None:
    given = {"acknowledge_seconds": 1.5, "batch_seconds": 0.25, "audit_queue_seconds": 2.5, "audit_deadline_seconds": 3}
    found = settings.load(tmp_path, given).engine()
    assert (found.acknowledge_ms, found.batch_ms) == (1500, 250)
    assert (found.audit_queue_ms, found.audit_deadline_ms) == (2500, 3000)
    given = {name: at + 1.5 for at, name in enumerate(CHALLENGE_SECONDS)}
    found = settings.load(tmp_path, {**given, "challenges": False, "challenge_tokens": 9}).engine()
    assert (found.proof_ms, found.challenge_lead_ms) == (1500, 2500)
    assert (found.challenge_retry_ms, found.challenge_again_ms) == (3500, 4500)
    assert (found.challenges, found.challenge_tokens) == (False, 9)


def test_secrets_are_made_once_private_and_kept(tmp_path: Path) -> None:
    folder = tmp_path / "new"
    first, again = secrets.load_or_create(folder), secrets.load_or_create(folder)
    assert (first.storage_key, first.signer.address) == (again.storage_key, again.signer.address)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert [path.stat().st_mode & 0o777 for path in folder.iterdir()] == [0o600] * 3
    assert (first.sampling_key, first.sampling_key != first.storage_key) == (again.sampling_key, True)
    assert first.storage_key != secrets.load_or_create(tmp_path / "other").storage_key


def test_secrets_show_in_no_representation(tmp_path: Path) -> None:
    found = secrets.load_or_create(tmp_path / "keys")
    assert found.storage_key.hex() not in repr(found)
    assert repr(found) == f"CoordinatorSecrets({found.signer.address})"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o700 | 0o060])
def test_a_loose_secret_is_refused_with_the_way_out(tmp_path: Path, mode: int) -> None:
    secrets.load_or_create(tmp_path)
    (tmp_path / "storage.key").chmod(mode)
    with pytest.raises(SecretRefused, match="chmod 600"):
        secrets.load_or_create(tmp_path)


def test_a_link_in_a_secrets_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("00" * 32)
    (tmp_path / "storage.key").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SecretRefused):
        secrets.load_or_create(tmp_path)


@pytest.mark.parametrize("text", ["", "zz", "00" * 31, "00" * 33, "\N{SNOWMAN}"])
def test_a_damaged_secret_is_refused_and_left_as_it_is(tmp_path: Path, text: str) -> None:
    secrets.load_or_create(tmp_path)
    path = tmp_path / "storage.key"
    path.write_text(text)
    with pytest.raises(SecretRefused):
        secrets.load_or_create(tmp_path)
    assert path.read_text() == text
