"""`parallelix wallet`: what the owner of an account does on a chain, as a person and a program meet it."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeAlias

import msgspec
import pytest
import typer.main
from anchoring_scene import anchor, chain_of, cut
from chain_scene import PRLX, Ethereum, funded, key
from eth_account.signers.local import LocalAccount
from test_chain_commands import Printed

from parallelix.chain.bindings.node_registry_locker import NodeRegistryLockerViews
from parallelix.chain.bindings.operator_stake_rewards import LivenessChange, OperatorStakeRewardsV2Calls
from parallelix.chain.bindings.prlx import PRLXCalls, PRLXViews
from parallelix.chain.clearance import Clearance, sign_clearance
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.holding import Done, Holder, Step
from parallelix.chain.rpc import Rpc, connected
from parallelix.chain.wallet import Wallet
from parallelix.client.cli import run
from parallelix.client.commands.wallet import DEPLOYMENT_VARIABLE, KEY_FILE_VARIABLE, RPC_VARIABLES, app
from parallelix.protocol.accounts import ClearanceView

InALoop: TypeAlias = "Callable[[Callable[[Rpc], Awaitable[Any]]], Any]"
KEY_HASH = "0x" + "5e" * 32
WEEK = 7 * 86_400


class Purse:
    """A requester's terminal, 80 columns wide, with a deployment file, an endpoint and a key file at hand."""

    def __init__(
        self, ethereum: Ethereum, capsys: pytest.CaptureFixture[str], deployment: Path, key_file: Path
    ) -> None:
        self.ethereum = ethereum
        self.deployment = deployment
        self.key_file = key_file
        self._capsys = capsys

    def run(self, command: str, *arguments: str) -> Printed:
        given = ("--deployment", str(self.deployment), "--rpc", self.ethereum.url)
        key_given = () if command == "earned" else ("--key-file", str(self.key_file))
        code = run(["wallet", command, *arguments, *given, *key_given])
        printed = self._capsys.readouterr()
        assert all(len(line) <= 80 for line in printed.out.splitlines()) or "--json" in arguments
        return Printed(code, printed.out, printed.err)

    def pass_time(self, seconds: int) -> None:
        self.ethereum.anvil.ask("evm_increaseTime", seconds)
        self.ethereum.anvil.ask("evm_mine")


@pytest.fixture
def requester(ethereum: Ethereum) -> LocalAccount:
    return funded(ethereum.anvil, key("requester"))


@pytest.fixture
def purse(
    ethereum: Ethereum,
    requester: LocalAccount,
    deployment_path: Path,
    deployed: Deployment,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    in_a_loop: InALoop,
) -> Purse:
    """Of a requester with 100,000 PRLX."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("PARALLELIX_HOME", str(tmp_path / "home"))
    for name in ("PARALLELIX_API_KEY", "PARALLELIX_URL", "PARALLELIX_RPC", "PARALLELIX_RPC_URL"):
        monkeypatch.delenv(name, raising=False)
    key_file = tmp_path / "requester.key"
    key_file.touch(mode=0o600)
    key_file.write_text("0x" + requester.key.hex())

    async def give(rpc: Rpc) -> None:
        deployer = Wallet(rpc, funded(ethereum.anvil, key("deployer")))
        await deployer.send(PRLXCalls(deployed.address("PRLX")).transfer(requester.address, 100_000 * PRLX))

    in_a_loop(give)
    return Purse(ethereum, capsys, deployment_path, key_file)


@pytest.fixture
def in_a_loop(ethereum: Ethereum) -> InALoop:
    """Runs a function of an endpoint; commands need the main thread's loop for themselves."""

    def done(work: Callable[[Rpc], Awaitable[Any]]) -> Any:
        async def opened() -> Any:
            async with connected(ethereum.url) as rpc:
                return await work(rpc)

        return asyncio.run(opened())

    return done


# Deposits


def test_a_deposit_is_explained_and_made_in_one_transaction(purse: Purse, deployed: Deployment) -> None:
    printed = purse.run("deposit", "1250.5prlx")

    assert (printed.code, printed.err) == (0, "· credits follow once the coordinator has seen it confirmed\n")
    lines = printed.out.splitlines()
    assert lines[:2] == ["// deposit: 1250.5 PRLX", f"   CreditVault  {deployed.address('CreditVault')}"]
    assert re.fullmatch(r"   in block     \d+", lines[2])
    assert re.fullmatch(r"   0x[0-9a-f]{64}", lines[4])
    assert lines[5:] == ["✓ the deposit is 1250.5 PRLX now"]


def test_amounts_are_exact_to_the_last_digit(purse: Purse) -> None:
    answer = purse.run("deposit", "0.000000000000000001prlx", "--json").answer
    again = purse.run("deposit", "12345.678901234567890123prlx", "--json").answer

    assert (answer["amount_wei"], answer["deposit_wei"]) == ("1", "1")
    assert (again["amount_wei"], again["deposit_wei"]) == ("12345678901234567890123", "12345678901234567890124")
    assert (again["state"], len(again["transactions"])) == ("done", 1)


@pytest.mark.parametrize("amount", ["100", "-5prlx", "1.0000000000000000001prlx", "muchprlx", "0x10wei"])
def test_an_amount_that_is_none_is_refused_before_anything_is_read(purse: Purse, amount: str) -> None:
    printed = purse.run("deposit", "--json", "--", amount) if amount.startswith("-") else purse.run("deposit", amount)

    assert printed.code == 2
    assert printed.out == ""


def test_an_approval_can_take_the_place_of_the_permit_and_is_for_exactly_the_amount(
    purse: Purse, deployed: Deployment, requester: LocalAccount, in_a_loop: InALoop
) -> None:
    printed = purse.run("deposit", "7prlx", "--approve")

    assert printed.code == 0
    assert "// allow CreditVault to take: 7 PRLX" in printed.out.splitlines()
    left = in_a_loop(
        lambda rpc: PRLXViews(rpc, deployed.address("PRLX")).allowance(
            requester.address, deployed.address("CreditVault")
        )
    )
    assert left == 0


def test_a_permit_that_the_token_does_not_take_is_followed_by_an_approval(
    purse: Purse, deployed: Deployment, requester: LocalAccount, in_a_loop: InALoop
) -> None:
    steps: list[Step] = []

    class Listening:
        def before(self, step: Step) -> bool:
            steps.append(step)
            return True

        def after(self, done: Done) -> None:
            assert done.step == steps[-1]

    async def with_an_expired_permit(rpc: Rpc) -> int | None:
        return await Holder(rpc, deployed, requester, Listening()).deposit(5 * PRLX, permit_seconds=-60)

    assert in_a_loop(with_an_expired_permit) == 5 * PRLX
    assert [step.what for step in steps] == ["allow CreditVault to take", "deposit"]


def test_a_rehearsal_says_what_would_be_sent_and_sends_nothing(purse: Purse) -> None:
    printed = purse.run("deposit", "10prlx", "--dry-run")
    staked = purse.run(
        "register", "--tier", "2", "--stake", "50000prlx", "--node-key-hash", KEY_HASH, "--dry-run", "--json"
    ).answer

    lines = printed.out.splitlines()
    assert (lines[0], lines[2:]) == ("// deposit: 10 PRLX", ["! nothing was sent; without --dry-run it is"])
    assert [each["what"] for each in staked["transactions"]] == [
        "allow NodeRegistryLocker to take",
        "stake for a new node of tier 2",
    ]
    assert {each["transaction_hash"] for each in staked["transactions"]} == {""}
    assert purse.run("balance", "--json").answer["prlx_wei"] == str(100_000 * PRLX)


def test_the_balance_says_what_is_where(purse: Purse, requester: LocalAccount) -> None:
    purse.run("deposit", "400prlx")
    purse.run("limit", "50prlx")
    purse.run("withdraw", "100prlx", "--alone")

    printed = purse.run("balance")
    answer = purse.run("balance", "--json").answer
    by_address = purse.run("balance", "--address", requester.address.lower(), "--json").answer

    assert "· in wallet     99600 PRLX" in printed.out
    assert "· deposit       400 PRLX" in printed.out
    assert "· daily limit   10000 PRLX" in printed.out
    assert re.search(r"· lower limit   50 PRLX from \d{4}-\d\d-\d\d 00:00:00Z on", printed.out)
    assert re.search(r"· asked for     100 PRLX, from \d{4}-", printed.out)
    assert answer["requested_wei"] == str(100 * PRLX)
    assert {**by_address, "fees_wei": ""} == {**answer, "fees_wei": ""}


def test_raising_a_limit_acts_at_once_and_lowering_it_later(purse: Purse) -> None:
    now = purse.ethereum.anvil.ask("eth_getBlockByNumber", "latest", False)["timestamp"]

    raised = purse.run("limit", "20000prlx", "--json").answer
    lowered = purse.run("limit", "1prlx", "--json").answer

    assert raised["effective_at"] - int(now, 16) < 60
    assert lowered["effective_at"] - int(now, 16) > 86_400
    assert lowered["effective_at"] % 86_400 == 0


# Withdrawals


def test_a_withdrawal_alone_is_asked_for_and_paid_by_the_same_command_later(
    purse: Purse, deployed: Deployment, requester: LocalAccount
) -> None:
    purse.run("deposit", "400prlx")

    asked = purse.run("withdraw", "100prlx", "--alone")
    early = purse.run("withdraw", "100prlx", "--alone")
    purse.pass_time(86_400)
    paid = purse.run("withdraw", "100prlx", "--alone")
    after = purse.run("balance", "--json").answer

    assert re.search(r"✓ asked for 100 PRLX; it can be paid from \d{4}-\d\d-\d\d \d\d:\d\d:\d\dZ on", asked.out)
    assert "then run it again: parallelix wallet withdraw --alone" in asked.err
    assert early.code == 0 and early.out.startswith("! a request for 100 PRLX is open, and can be paid from ")
    assert "✓ paid 100 PRLX; 300 PRLX stay in the deposit" in paid.out
    assert (after["deposit_wei"], after["requested_wei"]) == (str(300 * PRLX), "0")


def test_an_open_request_is_left_alone_unless_it_is_to_be_replaced_or_taken_back(purse: Purse) -> None:
    purse.run("deposit", "400prlx")
    first = purse.run("withdraw", "100prlx", "--alone", "--json").answer
    purse.pass_time(3_600)

    waiting = purse.run("withdraw", "150prlx", "--alone", "--json").answer
    replaced = purse.run("withdraw", "150prlx", "--alone", "--replace", "--json").answer
    purse.run("withdraw", "--take-back")
    nothing_open = purse.run("withdraw", "--alone", "--json")

    assert (waiting["state"], waiting["transactions"]) == ("waiting", [])
    assert (waiting["amount_wei"], waiting["effective_at"]) == (first["amount_wei"], first["effective_at"])
    assert replaced["amount_wei"] == str(150 * PRLX)
    assert replaced["effective_at"] >= first["effective_at"] + 3_600
    assert nothing_open.code == 2
    assert "no request is open; say how much" in nothing_open.err


def test_more_than_the_deposit_asks_for_all_of_it_and_says_so(purse: Purse) -> None:
    purse.run("deposit", "400prlx")

    printed = purse.run("withdraw", "500prlx", "--alone")

    assert "✓ asked for 400 PRLX" in printed.out
    assert "! that is the whole deposit; 500 PRLX is more than there is" in printed.out


def test_where_no_coordinator_answers_the_way_without_one_is_named(purse: Purse) -> None:
    purse.run("deposit", "400prlx")

    printed = purse.run("withdraw", "100prlx", "--url", "http://nowhere.example")

    assert (printed.code, printed.out) == (2, "")
    assert "without the coordinator: parallelix wallet withdraw 100prlx --alone" in printed.err


def test_with_a_clearance_it_is_paid_at_once_and_what_was_spent_is_settled(
    purse: Purse, deployed: Deployment, requester: LocalAccount
) -> None:
    purse.run("deposit", "400prlx")

    with coordinator_that_clears(cleared(deployed, requester.address, 100 * PRLX)) as url:
        printed = purse.run("withdraw", "100prlx", "--url", url)
    after = purse.run("balance", "--json").answer

    assert (printed.code, "✓ paid 100 PRLX; 297 PRLX stay in the deposit" in printed.out) == (0, True)
    assert "the coordinator says that 3 PRLX were ever spent" in printed.err
    assert (after["settled_wei"], after["deposit_wei"]) == (str(3 * PRLX), str(297 * PRLX))


def test_a_clearance_of_something_else_is_not_sent(purse: Purse, deployed: Deployment, requester: LocalAccount) -> None:
    purse.run("deposit", "400prlx")
    honest = cleared(deployed, requester.address, 100 * PRLX)
    for otherwise in (
        {"chain_id": 1},
        {"amount_wei": "1"},
        {"vault": deployed.address("PRLX")},
        {"account": key("somebody").address},
    ):
        with coordinator_that_clears(msgspec.structs.replace(honest, **otherwise)) as url:
            printed = purse.run("withdraw", "100prlx", "--url", url)
        assert printed.code == 1, otherwise
        assert printed.err.startswith("✗ chain.wallet_refused: the coordinator cleared"), otherwise

    with coordinator_that_clears(cleared(deployed, requester.address, 100 * PRLX, expiry=1)) as url:
        assert "vault: clearance has expired; " in purse.run("withdraw", "100prlx", "--url", url).err
    with coordinator_that_clears(msgspec.structs.replace(honest, s="0x" + "00" * 31)) as url:
        assert "s: expected 0x and 64" in purse.run("withdraw", "100prlx", "--url", url).err


def cleared(deployed: Deployment, account: str, amount_wei: int, *, expiry: int = 2**40) -> ClearanceView:
    clearance = Clearance(account=account, amount=amount_wei, cumulative_spent=3 * PRLX, nonce=0, expiry=expiry)
    vault = deployed.address("CreditVault")
    signature = sign_clearance(key("settler"), clearance, vault=vault, chain_id=deployed.chain_id)
    return ClearanceView(
        vault=vault,
        chain_id=deployed.chain_id,
        account=account,
        amount_wei=str(amount_wei),
        cumulative_spent_wei=str(clearance.cumulative_spent),
        nonce=0,
        expiry=expiry,
        v=signature.v,
        r="0x" + signature.r.hex(),
        s="0x" + signature.s.hex(),
    )


@contextmanager
def coordinator_that_clears(view: ClearanceView) -> Generator[str]:
    """What a coordinator answers to whoever signs in and asks for a clearance, and nothing else of it."""

    class Answering(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            host = self.headers["host"]
            times = {"issued_at": "2026-11-21T08:00:00Z", "expiration_time": "2026-11-21T08:05:00Z"}
            nonce = {"nonce": "a1b2c3d4e5f6a7b8", "domain": host, "uri": f"http://{host}"}
            session = {"token": "prlx_" + "x" * 43, "id": "ses_1", "account": view.account, "scopes": ["withdraw"]}
            answers: dict[str, Any] = {
                "/v1/auth/nonce": nonce | times | {"version": "1", "chain_id": view.chain_id},
                "/v1/auth/sign-in": session | {"expires_at": 2**40},
                "/v1/account/clearance": view,
            }
            body = msgspec.json.encode(answers[self.path])
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


# Nodes


def test_the_whole_life_of_a_stake(purse: Purse, deployed: Deployment, in_a_loop: InALoop) -> None:
    registered = purse.run("register", "--tier", "3", "--stake", "60000prlx", "--node-key-hash", KEY_HASH)
    node = in_a_loop(lambda rpc: NodeRegistryLockerViews(rpc, deployed.address("NodeRegistryLocker")).nodes(1))
    shown = purse.run("earned", "1")
    early = purse.run("withdraw-stake", "1")
    retired = purse.run("unstake", "1")
    cooling = purse.run("withdraw-stake", "1")
    purse.pass_time(WEEK)
    paid = purse.run("withdraw-stake", "1")

    assert (registered.code, registered.err) == (0, "· next, on its machine: parallelix-node start --node-id 1\n")
    assert "// allow NodeRegistryLocker to take: 60000 PRLX" in registered.out
    assert "✓ node 1 is registered, with a stake of 60000 PRLX" in registered.out
    assert (node.stake, node.hardware_tier, node.node_key_hash.hex()) == (60_000 * PRLX, 3, KEY_HASH[2:])
    assert "· state         active" in shown.out and "· earned        0 PRLX" in shown.out
    assert "locker: node is not cooling down; request the unstake first" in early.err
    assert re.search(r"✓ node 1 is retired; its stake is free from \d{4}-", retired.out)
    assert "then: parallelix wallet withdraw-stake 1" in retired.err
    assert re.search(r"node 1: its stake is free from \d{4}-\S+ \S+ UTC on; run the same command then", cooling.err)
    assert "✓ paid 60000 PRLX, the whole stake of node 1" in paid.out
    assert purse.run("earned", "1", "--json").answer["state"] == "withdrawn"


def test_what_the_locker_would_refuse_is_refused_before_the_approval_is_paid_for(purse: Purse) -> None:
    def refused(*given: str) -> str:
        chosen = dict(zip(given[::2], given[1::2], strict=True))
        options = {"--tier": "1", "--stake": "50000prlx", "--node-key-hash": KEY_HASH} | chosen
        printed = purse.run("register", *(each for pair in options.items() for each in pair))
        assert printed.code != 0 and printed.out == ""
        return printed.err

    assert "tier 5: is not 1 to 4" in refused("--tier", "5")
    assert "stake 49999 PRLX: at least 50000 PRLX a node" in refused("--stake", "49999prlx")
    assert "has 100000 PRLX, 100001 PRLX are needed; give a smaller amount" in refused("--stake", "100001prlx")
    assert "expected 0x and 64 lower-case hex digits" in refused("--node-key-hash", "0x12")
    purse.run("register", "--tier", "1", "--stake", "50000prlx", "--node-key-hash", KEY_HASH)
    assert "node 1 has this key already" in refused("--stake", "50000prlx")


def test_what_a_node_earned_is_shown_and_paid_to_its_owner(
    purse: Purse, deployed: Deployment, in_a_loop: InALoop
) -> None:
    purse.run("register", "--tier", "3", "--stake", "60000prlx", "--node-key-hash", KEY_HASH)
    nothing = purse.run("claim", "1")
    nobody = purse.run("claim", "9")
    (batch,) = cut(chain_of(3), [3])

    async def goes_online(rpc: Rpc) -> None:
        await anchor(purse.ethereum, rpc, deployed, [batch])
        calls = OperatorStakeRewardsV2Calls(deployed.address("OperatorStakeRewardsV2"))
        change = LivenessChange(node_id=1, online=True, voided_slots=0)
        liveness = Wallet(rpc, funded(purse.ethereum.anvil, key("liveness")))
        await liveness.send(calls.report_liveness(1, bytes.fromhex(batch.merkle_root[2:]), [change]))

    in_a_loop(goes_online)
    purse.pass_time(100)
    due_wei = int(purse.run("earned", "1", "--json").answer["earned_wei"])
    paid = purse.run("claim", "1", "--json").answer

    assert nothing.code == 1 and "rewards: " in nothing.err
    assert "node 9: there is no such node; ids go from 1 to 1" in nobody.err
    assert due_wei > 0
    assert int(paid["amount_wei"]) >= due_wei
    assert purse.run("balance", "--json").answer["prlx_wei"] == str(40_000 * PRLX + int(paid["amount_wei"]))


# Refused


def test_somebody_elses_node_is_not_retired(purse: Purse, ethereum: Ethereum, tmp_path: Path) -> None:
    purse.run("register", "--tier", "3", "--stake", "60000prlx", "--node-key-hash", KEY_HASH)
    purse.key_file = tmp_path / "stranger.key"
    purse.key_file.touch(mode=0o600)
    purse.key_file.write_text(funded(ethereum.anvil, key("stranger")).key.hex())

    assert f"node 1: belongs to {key('requester').address}" in purse.run("unstake", "1").err


def test_the_key_comes_from_a_private_file_only(purse: Purse) -> None:
    purse.key_file.chmod(0o644)
    loose = purse.run("deposit", "1prlx")
    purse.key_file.unlink()
    none = purse.run("deposit", "1prlx")

    assert (loose.code, "chain.key_refused" in loose.err, "chmod 600" in loose.err) == (1, True, True)
    assert "there is no such file" in none.err
    assert run(["wallet", "deposit", "1prlx", "--key", "0x" + "11" * 32]) == 2


def test_an_account_without_ether_is_told_so(purse: Purse, ethereum: Ethereum, requester: LocalAccount) -> None:
    ethereum.anvil.ask("anvil_setBalance", requester.address, "0x0")

    assert "has no ETH, which pays for transactions" in purse.run("deposit", "1prlx").err


def test_another_chain_another_file_and_a_dead_endpoint_are_told_apart(
    purse: Purse, tmp_path: Path, shared_deployment: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = json.loads(purse.deployment.read_text()) | {"chain_id": 1}
    purse.deployment.write_text(json.dumps(other))
    assert (
        "chain.wrong_chain: the endpoint serves chain 31337, the deployment is on chain 1" in purse.run("balance").err
    )

    purse.deployment = tmp_path / "nowhere.json"
    assert "there is no such file; get the network's deployment file" in purse.run("balance").err

    arguments = ["wallet", "balance", "--rpc", "http://127.0.0.1:1", "--address", key("requester").address]
    assert run([*arguments, "--deployment", str(shared_deployment)]) == 1
    assert "chain.unreachable: http://127.0.0.1:1: " in capsys.readouterr().err


# The page

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "wallet.md").read_text()


def test_the_page_names_every_command_and_only_options_that_exist() -> None:
    found: Any = typer.main.get_command(app)
    options = {option for command in found.commands.values() for each in command.params for option in each.opts}
    on_page = set(re.findall(r"parallelix wallet ([a-z-]+)", PAGE))

    assert on_page == set(found.commands)
    assert set(re.findall(r"(?<=[ `])--[a-z][a-z-]*(?=[ `])", PAGE)) - {"--wallet", "--node-id"} <= options
    for name in (KEY_FILE_VARIABLE, DEPLOYMENT_VARIABLE, RPC_VARIABLES[0]):
        assert f"`{name}`" in PAGE
