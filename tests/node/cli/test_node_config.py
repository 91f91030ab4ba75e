from __future__ import annotations

from datetime import datetime, time

import msgspec
import pytest
from node_scene import Operate

from parallelix.node.config import (
    COMMENTS,
    Config,
    encode_config,
    load_config,
    paused_because,
    service_url,
    wallet_address,
)
from parallelix.node.errors import ConfigRefused, SecretOffered
from parallelix.node.home import Home
from parallelix.node.hours import is_open, parse_hours

WALLET = "0x52908400098527886E0F7030069857D2E4169EE7"
MIXED = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"
SECRET = "4c0883a69102937d6231471b5dbb6204fe5129617082792ae468d01a3f362318"
SEED = "legal winner thank year wave sausage worth useful legal winner thank yellow"


def write(home: Home, text: str, mode: int = 0o600) -> None:
    home.root.mkdir(mode=0o700, exist_ok=True)
    home.config.write_text(text)
    home.config.chmod(mode)


def test_without_a_file_the_defaults_hold(home: Home) -> None:
    config = load_config(home)
    assert config == Config()
    assert config.coordinator == "https://parallelix.io/api"
    assert config.ollama_url == "http://127.0.0.1:11434"


def test_a_written_file_reads_back_the_same_with_a_comment_for_each_setting(home: Home) -> None:
    config = Config(
        wallet=WALLET, tier=4, slots=8, models=("llama3.2", 'quo"te'), region="eu-west", hours="22:00-06:00", pause="ü"
    )
    text = encode_config(config).decode()
    write(home, text)
    assert load_config(home) == config
    names = [field.name for field in msgspec.structs.fields(Config)]
    assert list(COMMENTS) == names
    assert all(f"# {COMMENTS[name]}" in text for name in names)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("slots = 0", "slots"),
        ("slots = 257", "slots"),
        ('slots = "two"', "slots"),
        ("tier = 5", "tier"),
        ('runtime = "cuda"', "runtime"),
        ('modles = ["llama3.2"]', "modles"),
        ("slots = ", "config.toml"),
        ('hours = "9-17"', "expected HH:MM-HH:MM"),
        ('coordinator = "ftp://parallelix.io"', "expected an http or https URL"),
        ('coordinator = "http://parallelix.io/api"', "plain http is for this machine only"),
        ('wallet = "0x1234"', "0x and 40 hex digits"),
        ("chain_id = -1", "chain_id"),
    ],
)
def test_a_bad_setting_is_named_with_its_file(home: Home, text: str, said: str) -> None:
    write(home, text)
    with pytest.raises(ConfigRefused) as refused:
        load_config(home)
    assert said in refused.value.message
    assert str(home.config) in refused.value.message


def test_a_file_that_others_may_write_is_refused_and_one_they_may_read_is_not(home: Home) -> None:
    write(home, "slots = 2", 0o644)
    assert load_config(home).slots == 2
    write(home, "slots = 2", 0o664)
    with pytest.raises(ConfigRefused, match="lets others in"):
        load_config(home)


@pytest.mark.parametrize("text", [MIXED, MIXED.lower(), "0x" + MIXED[2:].upper(), f" {MIXED}\n"])
def test_an_address_is_kept_in_its_checksummed_form(text: str) -> None:
    assert wallet_address(text) == MIXED


@pytest.mark.parametrize(
    "digit", ["5AAeb6053F3E94C9b9A09f33669435E7Ef1BeAed", "6aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"]
)
def test_a_wrong_digit_in_a_checksummed_address_is_found(digit: str) -> None:
    with pytest.raises(ConfigRefused, match="EIP-55"):
        wallet_address("0x" + digit)


@pytest.mark.parametrize("text", ["", "0x", "0x123", MIXED[2:], MIXED + "0", "vitalik.eth", "0x" + "g" * 40])
def test_what_is_no_address_is_refused_without_repeating_it(text: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        wallet_address(text)
    assert len(text) < 8 or text not in refused.value.message


@pytest.mark.parametrize(
    "arguments",
    [
        ["init", "--wallet", SECRET],
        ["init", "--wallet", "0x" + SECRET],
        ["init", "--wallet", " 0X" + SECRET.upper() + " "],
        ["init", f"--wallet={SECRET}"],
        ["init", f"--wallet=0x{SECRET}"],
        ["init", SECRET],
        ["status", "0x" + SECRET],
        ["init", "--wallet", SEED],
        ["init", *SEED.split()],
        ["init", "--wallet", *SEED.split()],
    ],
)
@pytest.mark.parametrize("json", [[], ["--json"]])
def test_a_private_key_on_the_command_line_is_refused_and_never_repeated(
    home: Home, operate: Operate, arguments: list[str], json: list[str]
) -> None:
    refused = operate(*arguments, *json)
    assert refused.code == 2
    printed = (refused.out + refused.err).lower()
    assert SECRET not in printed and SECRET[:12] not in printed
    assert "winner" not in printed and "sausage" not in printed
    assert not home.root.exists()


def test_a_private_key_is_refused_loudly(operate: Operate) -> None:
    refused = operate("init", "--wallet", SECRET)
    assert "node.secret_offered" in refused.err
    assert "STOP" in refused.err and "Nothing was stored" in refused.err and "ADDRESS" in refused.err


def test_a_private_key_in_the_file_is_refused_as_well(home: Home) -> None:
    write(home, f'wallet = "0x{SECRET}"')
    with pytest.raises(SecretOffered) as refused:
        load_config(home)
    assert SECRET not in refused.value.message


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://parallelix.io/api/", "https://parallelix.io/api"),
        ("http://127.0.0.1:8400/api", "http://127.0.0.1:8400/api"),
        ("http://[::1]:8400/api", "http://[::1]:8400/api"),
        ("http://localhost:8400", "http://localhost:8400"),
    ],
)
def test_a_base_url_loses_its_last_slash(text: str, url: str) -> None:
    assert service_url(text, name="coordinator") == url


@pytest.mark.parametrize(
    "text",
    [
        "",
        "parallelix.io",
        "https://",
        "https://name:word@parallelix.io/api",
        "https://x/?a=1",
        "https://x/#a",
        "https://x:99999",
    ],
)
def test_a_url_that_is_none_or_carries_credentials_is_refused(text: str) -> None:
    with pytest.raises(ConfigRefused) as refused:
        service_url(text, name="coordinator")
    assert "name:word" not in refused.value.message


@pytest.mark.parametrize(
    ("hours", "at", "open_then"),
    [
        ("", "12:00", True),
        ("22:00-06:00", "23:30", True),
        ("22:00-06:00", "05:59", True),
        ("22:00-06:00", "06:00", False),
        ("22:00-06:00", "12:00", False),
        ("00:00-08:00, 18:00-24:00", "07:59", True),
        ("00:00-08:00, 18:00-24:00", "08:00", False),
        ("00:00-08:00, 18:00-24:00", "23:59", True),
        ("09:00-17:00", "09:00", True),
        ("09:00-17:00", "17:00", False),
    ],
)
def test_hours_are_windows_of_local_time(hours: str, at: str, open_then: bool) -> None:
    assert is_open(parse_hours(hours), time.fromisoformat(at)) is open_then


@pytest.mark.parametrize(
    "hours", ["9-17", "24:00-06:00", "08:00-08:00", "08:60-09:00", "08:00-25:00", "08:00", ",", "x" * 100]
)
def test_hours_that_make_no_sense_are_refused(hours: str) -> None:
    with pytest.raises(ConfigRefused, match="hours"):
        parse_hours(hours)


def test_too_many_windows_are_refused() -> None:
    with pytest.raises(ConfigRefused, match="25 windows, at most 24"):
        parse_hours(",".join(["01:00-02:00"] * 25))


NOON = datetime(2026, 11, 21, 12, 0).astimezone()


def test_a_pause_and_hours_in_the_file_hold_while_the_node_runs(home: Home) -> None:
    write(home, "")
    assert paused_because(home, "", NOON) == ""
    write(home, 'pause = "moving house"')
    assert paused_because(home, "", NOON) == "moving house"
    write(home, 'hours = "22:00-06:00"')
    assert paused_because(home, "", NOON) == "outside the operator's hours 22:00-06:00"


def test_a_file_being_edited_does_not_take_the_node_off(home: Home) -> None:
    write(home, "pause = ")
    assert paused_because(home, "", NOON) == ""
    assert paused_because(home, "13:00-14:00", NOON) == "outside the operator's hours 13:00-14:00"
