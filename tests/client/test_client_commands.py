"""One golden file a command at 80 columns, one JSON schema a --json, and what else each command promises."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jsonschema
import msgspec
import pytest
import pytest_asyncio
from client_scene import SCHEMAS, UPDATE, Operate, Operating, matches_golden, matches_schema, with_fixed_values
from http_network import CREDITS_WEI, Network, StartNetwork, eventually
from talking_runtime import MODEL, TalkingRuntime

from parallelix.client import Client, Created, Delta, Ended, Restarted, Retry, amounts, cli, sdk
from parallelix.client import config as configs
from parallelix.client.commands.requests import Asking
from parallelix.client.errors import ClientError, ConfigRefused, RequestEnded
from parallelix.client.schemas import SCHEMAS as STRUCTS
from parallelix.engine import events as engine_events
from parallelix.terminal import Console

on_the_shared_network = pytest.mark.asyncio(loop_scope="module")

LEAVES = [
    "login", "ask", "request get", "request list", "request cancel", "receipt show", "receipt verify",
    "receipt refresh", "records export", "records verify", "quote", "models", "account", "keys", "keys list",
    "keys create", "keys revoke", "coordinator run", "coordinator grant", "coordinator key", "version",
]  # fmt: skip


@pytest_asyncio.fixture(loop_scope="module")
async def signed_in(network: Network, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[str]:
    """A key of an account of its own, in the environment."""
    account = f"account{next(network._numbers)}"  # pyright: ignore[reportPrivateUsage]
    grant = engine_events.Grant(grant_id=f"grant:{account}", account=account, amount_wei=CREDITS_WEI)
    await network.coordinator.settle(grant)
    secret = await network.new_key(account)
    monkeypatch.setenv("PARALLELIX_URL", network.url)
    monkeypatch.setenv("PARALLELIX_API_KEY", secret)
    yield secret


async def an_answer(operating: Operating, prompt: str = "one two three") -> str:
    """Asks, waits until the batch is confirmed, and gives the request's id."""
    request_id = json.loads((await operating("ask", prompt, "--json")).out.splitlines()[-1])["request_id"]

    async def is_settled() -> bool:
        return json.loads((await operating("request", "get", request_id, "--json")).out)["settled"]

    await eventually(is_settled)
    return request_id


# The whole


@pytest.mark.parametrize("name", STRUCTS)
def test_the_published_schema_is_that_of_the_answer(name: str) -> None:
    made = msgspec.json.schema(STRUCTS[name])
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": f"parallelix {name}"}
    path = SCHEMAS / f"{name}.json"
    if UPDATE:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(head | made, indent=2, ensure_ascii=False) + "\n")
    published = json.loads(path.read_text())
    jsonschema.Draft202012Validator.check_schema(published)
    assert published == json.loads(json.dumps(head | made))


def test_every_schema_file_belongs_to_a_command() -> None:
    assert {path.stem for path in SCHEMAS.glob("*.json")} == set(STRUCTS)


@pytest.mark.parametrize("command", LEAVES)
def test_every_command_takes_json_and_its_help_fits_80_columns(operate: Operate, command: str) -> None:
    shown = operate(*command.split(), "--help").out
    assert "--json" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())


def test_help(operate: Operate) -> None:
    shown = operate("--help")
    matches_golden("help", shown.out)
    listed = shown.out.partition("Commands:\n")[2].splitlines()
    names = [line.split()[0] for line in listed if line.startswith("  ") and line[2] != " "]
    assert names[: len(cli.COMMANDS)] == [*cli.COMMANDS]
    assert (operate().code, operate().err, operate().out) == (2, "", shown.out)


def test_version(operate: Operate) -> None:
    matches_golden("version", with_fixed_values(operate("version").out))
    assert matches_schema("version", operate("version", "--json").out)["name"] == "parallelix"


def test_a_start_imports_neither_http_nor_cryptography_nor_a_server() -> None:
    program = (
        "import sys; from parallelix.client.cli import run; run(['--help']); run(['version']); "
        "heavy = {'httpx', 'coincurve', 'joserfc', 'sqlalchemy', 'litestar', 'uvloop', 'web3'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize("arguments", [["ask", "--nonsense"], ["nonsense"], ["ask", "--max-tokens", "x", "hi"]])
def test_what_cannot_be_parsed_is_one_line_and_exit_code_2(operate: Operate, arguments: list[str]) -> None:
    printed = operate(*arguments, "--json")
    assert (printed.code, printed.out) == (2, "")
    assert matches_schema("error", printed.err)["error"] == "client.usage"


@pytest.mark.parametrize(("extra", "library", "arguments"), [
    ("coordinator", "sqlalchemy", ["coordinator", "grant", "you", "1prlx"]),
    ("coordinator", "uvloop", ["coordinator", "run"]),
    ("coordinator,embedded,chain", "sqlalchemy", ["devnet", "up"]),
    ("chain", "web3", ["chain", "show", "deployment.json"]),
])  # fmt: skip
def test_a_missing_part_is_named_with_what_to_install(extra: str, library: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.modules[{library!r}] = None; from parallelix.client.cli import run; "
        f"sys.exit(run({[*arguments]!r}))"
    )
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stdout) == (8, "")
    assert f"needs {library}" in shown.stderr
    assert f"pip install 'parallelix[{extra}]'" in shown.stderr


# Which coordinator, which key


def test_without_a_key_the_way_to_one_is_told(operate: Operate) -> None:
    printed = operate("account", "--json")
    assert (printed.code, printed.error["error"]) == (3, "client.key_refused")
    assert "parallelix login" in printed.error["message"]


@on_the_shared_network
async def test_login_tries_the_key_and_stores_it_where_only_its_owner_reads_it(
    network: Network, signed_in: str, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PARALLELIX_API_KEY")
    monkeypatch.delenv("PARALLELIX_URL")
    printed = await operating("login", "--url", network.url, stdin=signed_in + "\n")
    matches_golden("login", with_fixed_values(printed.out))
    as_json = await operating("login", "--json", stdin=signed_in)
    answer = matches_schema("login", as_json.out)
    assert answer["coordinator"] == (await network.coordinator.network()).coordinator
    assert signed_in not in printed.out + printed.err + as_json.out + as_json.err
    assert stat.S_IMODE(configs.path().stat().st_mode) == 0o600
    assert stat.S_IMODE(configs.folder().stat().st_mode) == 0o700
    assert (await operating("account")).code == 0


@on_the_shared_network
async def test_login_goes_to_the_coordinator_that_the_environment_names(
    network: Network, signed_in: str, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    stored('url = "https://one.example/api"\n')
    monkeypatch.setenv("PARALLELIX_URL", network.url)
    assert matches_schema("login", (await operating("login", "--json", stdin=signed_in)).out)["url"] == network.url
    assert configs.load_file().url == network.url


@pytest.mark.parametrize("command", ["wallet deposit", "records verify", "keys revoke", "chain show"])
def test_a_missing_argument_names_the_help_of_its_own_command(operate: Operate, command: str) -> None:
    printed = operate(*command.split(), "--json")
    assert (printed.code, printed.error["error"]) == (2, "client.usage")
    assert printed.error["message"].endswith(f"; see parallelix {command} --help")


@on_the_shared_network
async def test_a_key_that_is_refused_is_not_stored(network: Network, operating: Operating) -> None:
    printed = await operating("login", "--url", network.url, "--json", stdin="prlx_nobody")
    assert (printed.code, printed.error["error"]) == (3, "invalid_api_key")
    assert not configs.path().exists()
    empty = await operating("login", "--url", network.url, "--json", stdin="")
    assert (empty.code, empty.error["error"]) == (3, "client.key_refused")


def stored(text: str, mode: int = 0o600) -> Path:
    configs.make_folder()
    configs.path().write_text(text)
    configs.path().chmod(mode)
    return configs.path()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_a_file_that_others_can_read_is_refused_with_the_line_that_mends_it(operate: Operate, mode: int) -> None:
    stored('api_key = "prlx_secret"\n', mode)
    printed = operate("account", "--json")
    assert (printed.code, printed.error["error"]) == (3, "client.key_refused")
    assert f"chmod 600 {configs.path()}" in printed.error["message"]


def test_a_linked_file_is_refused(operate: Operate, tmp_path: Path) -> None:
    (tmp_path / "elsewhere.toml").write_text("")
    configs.make_folder()
    configs.path().symlink_to(tmp_path / "elsewhere.toml")
    assert operate("account", "--json").error["error"] == "client.key_refused"


@pytest.mark.parametrize("text", ['api_key = "prlx_secret', 'colour = "red"', "api_key = 5", "api_key = \xff"])
def test_a_file_that_is_wrong_is_refused_without_showing_what_is_in_it(operate: Operate, text: str) -> None:
    stored("")
    configs.path().write_bytes(text.encode("latin-1"))
    printed = operate("account", "--json")
    assert (printed.code, printed.error["error"]) == (2, "client.config_refused")
    assert "secret" not in printed.err


def test_the_stored_key_goes_to_the_stored_coordinator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    stored('url = "https://one.example/api"\napi_key = "prlx_stored"\n')
    assert configs.load().api_key == "prlx_stored"
    assert configs.load(url="https://one.example/api/v1").api_key == "prlx_stored"
    assert configs.load(url="https://two.example").api_key == ""
    monkeypatch.setenv("PARALLELIX_URL", "https://two.example")
    assert (configs.load().url, configs.load().api_key) == ("https://two.example", "")
    monkeypatch.setenv("PARALLELIX_API_KEY", "prlx_two")
    assert configs.load().api_key == "prlx_two"
    assert "prlx" not in repr(configs.load())


def test_an_address_where_nobody_listens_is_exit_code_5(operate: Operate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELIX_API_KEY", "prlx_x")
    monkeypatch.setattr(sdk, "Retry", lambda: Retry(tries_max=2, first_seconds=0.001))
    printed = operate("account", "--url", "http://127.0.0.1:9", "--json")
    assert (printed.code, printed.error["error"]) == (5, "client.unreachable")
    assert "trying again" in printed.err


# ask


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_ask_gives_a_pipe_the_answer_alone(operating: Operating) -> None:
    printed = await operating("ask", "one two three")
    assert (printed.code, printed.out) == (0, "one two three\n")
    matches_golden("ask", printed.out + with_fixed_values(printed.err))
    piped = await operating("ask", "--model", MODEL, stdin="from a file\n")
    assert piped.out == "from a file\n"
    assert (await operating("ask", "-", stdin="a dash")).out == "a dash\n"


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_ask_tells_a_program_each_event_and_at_last_the_whole_answer(operating: Operating) -> None:
    printed = await operating("ask", "one two three", "--json", "--max-tokens", "2", "--seed", "7")
    last = matches_schema("ask", printed.out)
    lines = [json.loads(line) for line in printed.out.splitlines()]
    assert (lines[0]["event"], last["event"]) == ("created", "completed")
    assert "".join(line["text"] for line in lines if line["event"] == "delta") == "one two"
    assert (last["text"], last["finish_reason"], last["usage"]["completion_tokens"]) == ("one two", "length", 2)
    assert (printed.code, printed.err) == (0, "")


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_ask_refuses_what_it_cannot_ask_and_says_why(operating: Operating, tmp_path: Path) -> None:
    for arguments, stdin, code, error in (
        (["ask"], "", 2, "client.config_refused"),
        (["ask", " "], "", 2, "client.config_refused"),
        (["ask", "hi", "--model", "nobody-has-this"], "", 4, "unknown_model"),
        (["ask", "hi", "--tier", "9"], "", 4, "malformed"),
        (["ask", "hi", "--priority", "now"], "", 4, "malformed"),
        (["ask", "hi", "--save", str(tmp_path)], "", 2, "client.file_refused"),
    ):
        printed = await operating(*arguments, "--json", stdin=stdin)
        assert (printed.code, printed.error["error"]) == (code, error), arguments


@on_the_shared_network
async def test_the_same_key_of_a_call_gives_the_same_answer_again(
    network: Network, signed_in: str, operating: Operating
) -> None:
    first = await operating("ask", "one two", "--idempotency-key", "mine")
    again = await operating("ask", "one two", "--idempotency-key", "mine")
    assert first == again
    async with Client(network.url, signed_in) as client:
        assert len((await client.list()).data) == 1


async def test_ctrl_c_cancels_the_request(start_network: StartNetwork, runtime: TalkingRuntime) -> None:
    # With that grace, nobody but the command itself cancels.
    async with start_network(runtime, client_grace_seconds=600) as network, network.customer() as customer:
        secret = customer.headers["authorization"].removeprefix("Bearer ")
        environment = os.environ | {"PARALLELIX_URL": network.url, "PARALLELIX_API_KEY": secret}
        asking = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "parallelix.client", "ask", "wait here", env=environment,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(60):
            await runtime.waiting.wait()
            asking.send_signal(signal.SIGINT)
            out, err = await asking.communicate()
        assert (asking.returncode, out, err) == (130, b"", b"")

        async def is_cancelled() -> bool:
            (view,) = (await customer.get("/v1/requests")).json()["data"]
            return view["state"] == "cancelled"

        await eventually(is_cancelled)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def ended(state: Any = "completed") -> Ended:
    from parallelix.protocol.work import Usage

    return Ended(
        request_id="req_1", state=state, reason="", finish_reason="stop", tool_calls=(), charge_wei="5", audit="off",
        usage=Usage(prompt_tokens=1, completion_tokens=2), record_hash="0x00", receipt=None,
    )  # fmt: skip


def shown_on(out: io.StringIO, *events: Created | Delta | Restarted | Ended) -> tuple[str, str]:
    err = io.StringIO()
    asking = Asking(Console(out, err))
    for event in events:
        asking.take(event)
    asking.close(None)
    return out.getvalue(), err.getvalue()


VOIDED = (
    Delta(attempt=1, offset_bytes=0, text="void "),
    Restarted(attempt=2),
    Delta(attempt=2, offset_bytes=0, text="so it is"),
)


def test_text_that_became_void_is_marked_on_a_terminal_and_never_reaches_a_pipe() -> None:
    out, err = shown_on(Terminal(), *VOIDED, ended())
    assert out.endswith("void \nso it is\n")
    assert "void, another one begins anew" in err
    out, err = shown_on(io.StringIO(), *VOIDED, ended())
    assert out == "so it is\n"
    assert "void" not in err


def test_an_answer_cannot_command_the_terminal_but_a_pipe_gets_it_as_it_is() -> None:
    text = "a\x1b[2J\x9b\u202eb\tc\nd"
    assert shown_on(Terminal(), Delta(attempt=1, offset_bytes=0, text=text), ended())[0].endswith(
        "a\ufffd[2J\ufffd\ufffdb\tc\nd\n"
    )
    assert shown_on(io.StringIO(), Delta(attempt=1, offset_bytes=0, text=text), ended())[0] == text + "\n"


@pytest.mark.parametrize("state", ["failed", "expired", "cancelled"])
def test_a_request_without_a_result_is_exit_code_6_and_prints_no_text(state: str) -> None:
    out = io.StringIO()
    with pytest.raises(RequestEnded) as refused:
        shown_on(out, Delta(attempt=1, offset_bytes=0, text="half"), ended(state))
    assert (out.getvalue(), refused.value.code, refused.value.exit_code) == ("", f"request.{state}", 6)


# quote, models, account, keys


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_quote_models_account_and_keys_as_promised(operating: Operating) -> None:
    for name, arguments in (
        ("quote", ["quote", "one two three", "--max-tokens", "100"]),
        ("models", ["models"]),
        ("account", ["account"]),
        ("keys", ["keys"]),
    ):
        printed, as_json = await operating(*arguments), await operating(*arguments, "--json")
        assert (printed.code, printed.err, as_json.code, as_json.err) == (0, "", 0, "")
        shown = "\n".join(line for line in printed.out.splitlines() if "answer in" not in line) + "\n"
        matches_golden(name, with_fixed_values(shown))
        matches_schema(name, as_json.out)


# request


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_request_get_list_and_cancel_as_promised(operating: Operating) -> None:
    assert "none yet" in (await operating("request", "list")).out
    request_id = await an_answer(operating)
    for name, arguments in (
        ("request-get", ["request", "get", request_id]),
        ("request-list", ["request", "list"]),
        ("request-cancel", ["request", "cancel", request_id]),
    ):
        printed, as_json = await operating(*arguments), await operating(*arguments, "--json")
        assert (printed.code, printed.err, as_json.code, as_json.err) == (0, "", 0, "")
        matches_golden(name, with_fixed_values(printed.out))
        matches_schema(name, as_json.out)


@on_the_shared_network
@pytest.mark.usefixtures("signed_in")
async def test_a_long_list_says_how_to_go_on(operating: Operating) -> None:
    for word in ("one", "two", "three"):
        await operating("ask", word)
    first = await operating("request", "list", "-n", "2")
    assert first.out.count("req_") == 2
    cursor = first.err.split()[-1]
    rest = await operating("request", "list", "-n", "2", "--cursor", cursor)
    assert (rest.out.count("req_"), rest.err) == (1, "")
    assert (await operating("request", "list", "--state", "failed")).out.count("req_") == 0
    assert (await operating("request", "list", "-n", "0", "--json")).error["error"] == "invalid_request"


async def test_a_held_request_says_why_it_waits_and_can_be_cancelled(
    start_network: StartNetwork, operating: Operating, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with start_network(TalkingRuntime(), nodes=0) as network, network.customer() as customer:
        monkeypatch.setenv("PARALLELIX_URL", network.url)
        monkeypatch.setenv("PARALLELIX_API_KEY", customer.headers["authorization"].removeprefix("Bearer "))
        request_id = (await customer.post("/v1/requests", json={"model": MODEL, "prompt": "x"})).json()["id"]
        assert "no node can run this model now; place 1" in (await operating("request", "get", request_id)).out
        assert "no node can run this model now" in (await operating("request", "list")).out
        assert "no node can run it now" in (await operating("quote", "x")).out
        cancelled = await operating("request", "cancel", request_id)
        assert cancelled.out == "✓ cancelled; charged 0 PRLX\n"
        assert "not_recorded_yet" in (await operating("receipt", "show", request_id)).err


# Amounts


@pytest.mark.parametrize(
    ("wei", "text"),
    [(0, "0 PRLX"), (11000, "11000 wei"), (10**12, "0.000001 PRLX"), (10**18, "1 PRLX"), (5 * 10**17, "0.5 PRLX"),
     (1234567890123456789, "1.234567890123456789 PRLX"), (-(10**18), "-1 PRLX")],
)  # fmt: skip
def test_an_amount_is_shown_exactly_and_reads_back(wei: int, text: str) -> None:
    assert amounts.shown(wei) == amounts.shown(str(wei)) == text
    if wei > 0:
        assert amounts.read(text, name="amount") == wei


@pytest.mark.parametrize(
    "text", ["", "5", "prlx", "-1prlx", "1e99prlx", "nanprlx", "infwei", "0.5wei", "1.0000000000000000001prlx", "5eth",
             "1" * 80 + "wei"]
)  # fmt: skip
def test_an_amount_without_a_unit_or_beyond_exactness_is_refused(text: str) -> None:
    with pytest.raises(ConfigRefused):
        amounts.read(text, name="amount")


def test_every_error_has_an_exit_code_of_its_table() -> None:
    kinds = [ClientError]
    for kind in kinds:
        kinds += kind.__subclasses__()
    assert {kind.exit_code for kind in kinds} == {1, 2, 3, 4, 5, 6, 8}
