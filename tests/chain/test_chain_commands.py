"""`parallelix chain deploy`, `accept` and `show`, as a person and a program meet them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from chain_scene import Ethereum, funded, key, named_roles
from eth_account.signers.local import LocalAccount

from parallelix.chain import deployment_file
from parallelix.chain.deployment_file import ROLES, Deployment
from parallelix.chain.plan import CONTRACTS
from parallelix.chain.wallet import KEY_VARIABLE
from parallelix.client.cli import run


class Printed:
    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err

    @property
    def answer(self) -> dict[str, Any]:
        return json.loads(self.out)


class Terminal:
    """One person's terminal, 80 columns wide, with the deployer's key in its environment."""

    def __init__(self, ethereum: Ethereum, capsys: pytest.CaptureFixture[str], file: Path) -> None:
        self.ethereum = ethereum
        self.file = file
        self._capsys = capsys

    def run(self, *arguments: str) -> Printed:
        code = run(["chain", *arguments])
        printed = self._capsys.readouterr()
        return Printed(code, printed.out, printed.err)

    def deploy(self, *more: str, **roles: str) -> Printed:
        named = {role: getattr(named_roles(), role) for role in ROLES} | roles
        given = [argument for role, address in named.items() for argument in (f"--{role}", address)]
        return self.run("deploy", "--rpc", self.ethereum.url, "--out", str(self.file), *given, *more)

    def accept(self, owner_key: Path, *more: str) -> Printed:
        return self.run("accept", str(self.file), "--rpc", self.ethereum.url, "--key-file", str(owner_key), *more)

    def show(self, *more: str) -> Printed:
        return self.run("show", str(self.file), *more)


@pytest.fixture
def terminal(
    ethereum: Ethereum, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Terminal:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    for name in ("PARALLELIX_RPC", "PARALLELIX_RPC_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv(KEY_VARIABLE, funded(ethereum.anvil, key("another deployer")).key.hex())
    return Terminal(ethereum, capsys, tmp_path / "new.json")


@pytest.fixture
def showing(terminal: Terminal, deployment_path: Path) -> Terminal:
    """A terminal beside a finished deployment."""
    terminal.file = deployment_path
    return terminal


def test_deploy_shows_each_step_and_what_the_owner_still_has_to_do(terminal: Terminal) -> None:
    printed = terminal.deploy("--lockup", terminal.ethereum.lockup)

    assert (printed.code, printed.err) == (0, "")
    done = deployment_file.read(terminal.file)
    assert done is not None and done.complete
    for name in CONTRACTS:
        assert f"✓ {name:<24} {done.address(name)}" in printed.out
    for step in ("bind rewards", "exempt lockup", "create stream", "bind stream", "hand over CreditVault"):
        assert f"✓ {step}" in printed.out
    assert f"! {named_roles().owner} must still accept PRLX," in " ".join(printed.out.split())
    assert max(map(len, printed.out.splitlines())) <= 80


def test_deploy_again_does_nothing_and_json_says_where_everything_is(terminal: Terminal) -> None:
    first = terminal.deploy("--json")
    again = terminal.deploy("--json")

    assert first.code == again.code == 0
    assert first.answer == again.answer
    assert first.answer["file"] == str(terminal.file)
    assert list(first.answer["contracts"]) == list(CONTRACTS)
    assert (first.answer["chain_id"], first.answer["stream_id"], first.answer["complete"]) == (31337, None, True)
    assert first.answer["unaccepted"] == ["PRLX", "ExecutionAnchor", "OperatorStakeRewardsV2", "CreditVault"]
    assert "✓ PRLX" not in terminal.deploy().out


def test_show_prints_a_deployment_in_80_columns_and_checks_it_against_the_chain(showing: Terminal) -> None:
    plain, checked = showing.show(), showing.show("--rpc", showing.ethereum.url)

    assert (plain.code, plain.err, checked.code, checked.err) == (0, "", 0, "")
    assert "// deployment on chain 31337, complete" in plain.out
    for text in (*CONTRACTS, *ROLES, "lockup", "stream", "deployer"):
        assert f"· {text} " in plain.out
    assert checked.out.startswith(plain.out)
    assert "✓ code of CreditVault" in checked.out
    assert "! owner of PRLX" in checked.out
    assert "✗" not in checked.out
    assert max(map(len, checked.out.splitlines())) <= 80


def test_show_fails_where_the_chain_is_not_what_the_file_says(showing: Terminal, deployed: Deployment) -> None:
    showing.ethereum.anvil.ask("anvil_setCode", deployed.address("CreditVault"), "0x6001")

    printed = showing.show("--rpc", showing.ethereum.url)
    as_json = showing.show("--rpc", showing.ethereum.url, "--json")

    assert printed.code == as_json.code == 1
    assert "✗ code of CreditVault             other code, in the file as compiled" in printed.out
    assert as_json.answer["holds"] is False
    assert [each["name"] for each in as_json.answer["checks"] if each["found"] == "other code"] == [
        "code of CreditVault"
    ]


@pytest.mark.parametrize(
    ("roles", "code", "words"),
    [
        ({"settler": "0x" + "00" * 20}, "chain.deployment_refused", "settler: the zero address"),
        ({"owner": "me"}, "chain.deployment_refused", "owner: 'me' is no address"),
    ],
)
def test_a_role_that_is_no_account_is_refused_in_one_line(
    terminal: Terminal, roles: dict[str, str], code: str, words: str
) -> None:
    printed = terminal.deploy("--json", **roles)

    assert (printed.code, printed.out) == (1, "")
    assert json.loads(printed.err)["error"] == code
    assert words in json.loads(printed.err)["message"]
    assert not terminal.file.exists()


def test_the_key_is_taken_from_a_private_file_and_never_from_the_command_line(
    terminal: Terminal, deployer: LocalAccount, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY_VARIABLE)
    path = terminal.file.with_name("key")
    path.touch(mode=0o600)
    path.write_text(deployer.key.hex())

    assert terminal.deploy().err.startswith("✗ chain.key_refused: no deployer's key: give --key-file PATH")
    assert terminal.deploy("--key", deployer.key.hex()).code == 2
    assert terminal.deploy("--key-file", str(path)).code == 0
    assert deployer.key.hex() not in terminal.file.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["show", "nowhere.json"], 1, "there is no such file"),
        (["deploy", "--rpc", "http://127.0.0.1:1"], 2, "missing option '--owner'"),
        (["show"], 2, "missing argument 'FILE'"),
        (["nonsense"], 2, "no such command 'nonsense'"),
    ],
)
def test_what_cannot_be_done_is_one_line_on_standard_error(
    capsys: pytest.CaptureFixture[str], arguments: list[str], code: int, words: str
) -> None:
    assert run(["chain", *arguments]) == code

    printed = capsys.readouterr()
    assert printed.out == ""
    assert words in printed.err
    assert printed.err.count("\n") == 1


def test_an_endpoint_that_does_not_answer_is_told_in_one_line(showing: Terminal) -> None:
    printed = showing.show("--rpc", "http://127.0.0.1:1")

    assert (printed.code, printed.out) == (1, "")
    assert printed.err.startswith("✗ chain.unreachable: http://127.0.0.1:1: ")


def test_the_environment_can_name_the_endpoint(showing: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELIX_RPC", showing.ethereum.url)

    assert "// on the chain" in showing.show().out


def test_the_owner_accepts_every_contract_once(terminal: Terminal, tmp_path: Path) -> None:
    owner_key = key_file(tmp_path, funded(terminal.ethereum.anvil, key("owner")))
    terminal.deploy()

    first = terminal.accept(owner_key)
    again = terminal.accept(owner_key, "--json")

    assert (first.code, again.code) == (0, 0)
    assert first.out.count("✓") == 5
    assert again.answer["accepted"] == []
    assert again.answer["owned_before"] == ["PRLX", "ExecutionAnchor", "OperatorStakeRewardsV2", "CreditVault"]
    assert "!" not in terminal.show("--rpc", terminal.ethereum.url).out


def test_nobody_else_can_accept(terminal: Terminal, tmp_path: Path) -> None:
    terminal.deploy()

    refused = terminal.accept(key_file(tmp_path, funded(terminal.ethereum.anvil, key("somebody"))))

    assert refused.code == 1
    assert f"PRLX: waits for {named_roles().owner}, not for {key('somebody').address}" in refused.err


def key_file(folder: Path, account: LocalAccount) -> Path:
    path = folder / "account.key"
    path.write_text("0x" + account.key.hex())
    path.chmod(0o600)
    return path
