"""`parallelix`: ask the network, look at requests and receipts, run a coordinator.

Commands import what they need when they run, so that help and a shell's completion stay quick, and a requester needs no
server installed. Exit codes are in errors.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from parallelix.client.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, ClientError
from parallelix.terminal import Console

PROGRAM = "parallelix"
COMMANDS = (
    "login", "ask", "request", "receipt", "quote", "models", "account", "keys", "wallet", "records", "audit",
    "coordinator", "devnet", "chain", "version",
)  # fmt: skip
LIST_LIMIT = 20
CONFIRMATIONS = 12
"""Two and a half minutes of Ethereum, and what a coordinator waits for before it believes its own batch."""
FLOOR_PERCENT = 10
PENDING_HOURS = 24.0
"""What `protocol.audit_log` says too, which help does not wait for."""


class InOrderOfUse(TyperGroup):
    """Help lists the commands as a requester meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


_CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"], "max_content_width": 80}

app = typer.Typer(
    name=PROGRAM,
    cls=InOrderOfUse,
    help="Asks the ParalleliX network, and checks what comes back.",
    epilog="The coordinator and the API key come from `login`, or from PARALLELIX_URL and PARALLELIX_API_KEY.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings=_CONTEXT,
)
request_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Look at requests, and cancel them.")
receipt_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="Show and verify receipts.")
records_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="All records: export them, audit them.")
audit_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="The network's audits: verify them all.")
coordinator_app = typer.Typer(
    rich_markup_mode=None, no_args_is_help=True, help="Run a coordinator; grant credits and keys on its machine."
)
keys_app = typer.Typer(
    rich_markup_mode=None, invoke_without_command=True, help="The API keys of this account: list, create, revoke."
)
app.add_typer(request_app, name="request", short_help="Look at requests, and cancel them: get, list, cancel.")
app.add_typer(receipt_app, name="receipt", short_help="Receipts: show, verify, refresh.")
app.add_typer(keys_app, name="keys", short_help="The API keys of this account: list, create, revoke.")
app.add_typer(records_app, name="records", short_help="All records: export, verify.")
app.add_typer(audit_app, name="audit", short_help="The network's audits: verify that all were drawn.")
app.add_typer(coordinator_app, name="coordinator", short_help="Run a coordinator: run, grant, key.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
Url = Annotated[str, typer.Option("--url", metavar="URL", help="The coordinator's base URL.")]
RequestId = Annotated[str, typer.Argument(metavar="ID", help="A request's id, req_…")]
Prompt = Annotated[str | None, typer.Argument(metavar="[PROMPT]", help="What to ask; - or nothing: standard input.")]
Model = Annotated[str, typer.Option("--model", metavar="NAME", help="The model; see `parallelix models`.")]
System = Annotated[str, typer.Option("--system", metavar="TEXT", help="A system message before the prompt.")]
MaxTokens = Annotated[int | None, typer.Option("--max-tokens", metavar="N", help="The longest answer, in tokens.")]
Tier = Annotated[int, typer.Option("--tier", metavar="TIER", help="The least hardware tier, 1 to 4.")]
Priority = Annotated[str, typer.Option("--priority", metavar="NAME", help="standard, expedited or urgent.")]
Address = Annotated[
    str, typer.Option("--coordinator", metavar="ADDRESS", help="The address that must have signed receipts.")
]
Folder = Annotated[
    Path | None, typer.Option("--folder", metavar="PATH", help="The coordinator's data (~/.parallelix/coordinator).")
]

KeyFile = Annotated[
    Path | None,
    typer.Option(
        "--key-file", metavar="PATH", envvar="PARALLELIX_KEY_FILE", help="Sign in with this wallet's key, mode 0600."
    ),
]
KeyName = Annotated[str, typer.Option("--name", metavar="NAME", help="To tell the account's keys apart.")]
PerMinute = Annotated[int, typer.Option("--requests-per-minute", metavar="N", help="The most per minute; 0: no limit.")]
Concurrency = Annotated[int, typer.Option("--concurrency", metavar="N", help="The most open at once; 0: no limit.")]
Budget = Annotated[str, typer.Option("--budget", metavar="AMOUNT", help="The most it may spend, such as 10prlx.")]
Days = Annotated[int, typer.Option("--days", metavar="N", help="How long it is valid; 0: for ever.")]

Deployment = Annotated[
    Path | None,
    typer.Option(
        "--deployment",
        metavar="FILE",
        envvar="PARALLELIX_DEPLOYMENT",
        help="The network's deployment file: ask its chain.",
    ),
]
Rpc = Annotated[
    str,
    typer.Option(
        "--rpc",
        metavar="URL",
        envvar=["PARALLELIX_RPC_URL", "PARALLELIX_RPC"],
        help="An Ethereum endpoint of that chain.",
    ),
]
Confirmations = Annotated[
    int, typer.Option("--confirmations", metavar="N", min=0, max=10_000, help="Blocks that have to lie above a batch.")
]


@app.command(short_help="Store the coordinator's URL and an API key.")
def login(
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="PATH", help="Sign in with this wallet's key, and make the API key."),
    ] = None,
    name: KeyName = "login",
    days: Days = 0,
    url: Url = "",
    coordinator: Address = "",
    json: Json = False,
) -> None:
    """Ask for an API key (or read it from standard input), try it, and store it in ~/.parallelix/client.toml.

    With --key-file nothing is asked: the wallet signs in, a key is made, tried and stored.
    """
    from parallelix.client.commands import account

    console = Console.standard(json=json)
    if key_file is None:
        account.login(console, url=url, coordinator=coordinator)
    else:
        account.login_by_wallet(console, key_file, name=name, days=days, url=url, coordinator=coordinator)


@app.command(short_help="Ask a model; the answer streams to the terminal.")
def ask(
    prompt: Prompt = None,
    model: Model = "",
    system: System = "",
    max_tokens: MaxTokens = None,
    temperature: Annotated[float | None, typer.Option("--temperature", metavar="T", help="0 to 2.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", metavar="N", help="For a repeatable choice of words.")] = None,
    tier: Tier = 1,
    priority: Priority = "standard",
    deadline: Annotated[
        float | None, typer.Option("--deadline", metavar="SECONDS", help="The most that one attempt may take.")
    ] = None,
    save: Annotated[
        Path | None, typer.Option("--save", metavar="FILE", help="Keep prompt, answer and receipt in a new file.")
    ] = None,
    idempotency_key: Annotated[
        str, typer.Option("--idempotency-key", metavar="KEY", help="Find the same request again when repeated.")
    ] = "",
    url: Url = "",
    json: Json = False,
) -> int:
    """Ask a model. Ctrl-C cancels the request. Into a pipe goes the answer alone, once it is verified."""
    from parallelix.client.commands import requests

    wanted = requests.Wanted(
        prompt=prompt,
        model=model,
        system=system,
        max_tokens=max_tokens,
        temperature=temperature,
        seed=seed,
        tier=tier,
        priority=priority,
        deadline_seconds=deadline,
    )
    return requests.ask(Console.standard(json=json), wanted, url=url, save=save, idempotency_key=idempotency_key)


@request_app.command("get")
def request_get(request_id: RequestId, url: Url = "", json: Json = False) -> None:
    """Show one request: its state, what it cost, and its answer."""
    from parallelix.client.commands.requests import get

    get(Console.standard(json=json), request_id, url=url)


@request_app.command("list")
def request_list(
    state: Annotated[str, typer.Option("--state", metavar="STATE", help="Only requests in this state.")] = "",
    limit: Annotated[int, typer.Option("-n", "--limit", metavar="N", help="How many, 1 to 100.")] = LIST_LIMIT,
    cursor: Annotated[str, typer.Option("--cursor", metavar="CURSOR", help="Go on from the page before.")] = "",
    url: Url = "",
    json: Json = False,
) -> None:
    """List the account's requests, newest first."""
    from parallelix.client.commands.requests import show_list

    show_list(Console.standard(json=json), state=state, limit=limit, cursor=cursor, url=url)


@request_app.command("cancel")
def request_cancel(request_id: RequestId, url: Url = "", json: Json = False) -> None:
    """Cancel a request. What a node has done of it by then is charged, and no more."""
    from parallelix.client.commands.requests import cancel

    cancel(Console.standard(json=json), request_id, url=url)


@records_app.command("export")
def records_export(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="A new file, one record a line.")],
    url: Url = "",
    json: Json = False,
) -> None:
    """Write all records that the coordinator has, with their batches, to a new file. Anyone may: no key is needed."""
    from parallelix.client.commands.records import export

    export(Console.standard(json=json), out, url=url)


@records_app.command("verify")
def records_verify(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `records export`.")],
    deployment: Deployment = None,
    rpc: Rpc = "",
    confirmations: Confirmations = CONFIRMATIONS,
    at_block: Annotated[
        int | None, typer.Option("--at-block", metavar="N", min=0, help="Compare with the chain as it was then.")
    ] = None,
    json: Json = False,
) -> int:
    """Find every record that was edited, dropped, added or moved, from the file and the chain of --deployment alone."""
    from parallelix.client.commands.records import verify

    return verify(
        Console.standard(json=json),
        path,
        deployment=deployment,
        rpc=rpc,
        confirmations=confirmations,
        at_block=at_block,
    )


@audit_app.command("verify")
def audit_verify(
    path: Annotated[Path, typer.Argument(metavar="EXPORT", help="A file of `records export`.")],
    deployment: Deployment = None,
    rpc: Rpc = "",
    confirmations: Confirmations = CONFIRMATIONS,
    coordinator: Annotated[
        str, typer.Option("--coordinator", metavar="URL", help="Whom to ask for the epochs where no chain keeps them.")
    ] = "",
    floor: Annotated[
        int, typer.Option("--floor", metavar="PERCENT", min=0, max=100, help="The lowest rate that there may be.")
    ] = FLOOR_PERCENT,
    epoch: Annotated[int | None, typer.Option("--epoch", metavar="N", min=0, help="Tell of this epoch alone.")] = None,
    pending_hours: Annotated[
        float, typer.Option("--pending-hours", metavar="HOURS", min=0, help="How long an audit may be on its way.")
    ] = PENDING_HOURS,
    json: Json = False,
) -> int:
    """Recompute from an export which executions had to be audited, and find each audit that is missing, or too many,
    and each rate that is too low."""
    from parallelix.client.commands.audits import verify

    return verify(
        Console.standard(json=json),
        path,
        deployment=deployment,
        rpc=rpc,
        confirmations=confirmations,
        coordinator=coordinator,
        floor_percent=floor,
        only_epoch=epoch,
        pending_hours=pending_hours,
    )


@receipt_app.command("show")
def receipt_show(request_id: RequestId, url: Url = "", json: Json = False) -> None:
    """Show the receipt of a request. With --json it is the receipt itself, to be kept in a file."""
    from parallelix.client.commands.receipts import show

    show(Console.standard(json=json), request_id, url=url)


@receipt_app.command("verify")
def receipt_verify(
    source: Annotated[str, typer.Argument(metavar="FILE|ID", help="A file of `ask --save` or `receipt show --json`.")],
    coordinator: Address = "",
    payload: Annotated[
        Path | None, typer.Option("--payload", metavar="FILE", help="The canonical payload, to compare.")
    ] = None,
    result: Annotated[
        Path | None, typer.Option("--result", metavar="FILE", help="The canonical result, to compare.")
    ] = None,
    deployment: Deployment = None,
    rpc: Rpc = "",
    confirmations: Confirmations = CONFIRMATIONS,
    url: Url = "",
    json: Json = False,
) -> int:
    """Verify a receipt, check by check: a file without any network, an id with what the coordinator publishes; with
    --deployment and --rpc, its batch by the chain alone."""
    from parallelix.client.commands.asking import Chain
    from parallelix.client.commands.receipts import verify

    chain = None if deployment is None else Chain(deployment=deployment, rpc=rpc, confirmations=confirmations)
    return verify(
        Console.standard(json=json),
        source,
        coordinator=coordinator,
        payload=payload,
        result=result,
        url=url,
        chain=chain,
    )


@receipt_app.command("refresh")
def receipt_refresh(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="A file of `ask --save` or `receipt show --json`.")],
    url: Url = "",
    json: Json = False,
) -> None:
    """Bring a kept receipt up to date, once its batch is confirmed."""
    from parallelix.client.commands.receipts import refresh

    refresh(Console.standard(json=json), path, url=url)


@app.command(short_help="What a request would hold, before it is made.")
def quote(
    prompt: Prompt = None,
    model: Model = "",
    system: System = "",
    max_tokens: MaxTokens = None,
    tier: Tier = 1,
    priority: Priority = "standard",
    url: Url = "",
    json: Json = False,
) -> None:
    """Say what a request would hold now, at most cost, and how long it would wait. Nothing is created."""
    from parallelix.client.commands import requests

    wanted = requests.Wanted(
        prompt=prompt, model=model, system=system, max_tokens=max_tokens, tier=tier, priority=priority
    )
    requests.quote(Console.standard(json=json), wanted, url=url)


@app.command(short_help="The models on offer, with their prices.")
def models(url: Url = "", json: Json = False) -> None:
    """List the models on offer, with their prices and the nodes that can run them."""
    from parallelix.client.commands.account import models

    models(Console.standard(json=json), url=url)


@app.command(short_help="Credits, and the limits of this key.")
def account(url: Url = "", json: Json = False) -> None:
    """Show the account's credits, what is held, and the limits of this API key."""
    from parallelix.client.commands.account import account

    account(Console.standard(json=json), url=url)


@keys_app.callback()
def keys(context: typer.Context, url: Url = "", json: Json = False) -> None:
    """The API keys of this account; without a command it lists them."""
    if context.invoked_subcommand is None:
        keys_list(url=url, json=json)


@keys_app.command("list")
def keys_list(key_file: KeyFile = None, url: Url = "", json: Json = False) -> None:
    """List the API keys of this account, without their secrets."""
    from parallelix.client.commands.keys import show

    show(Console.standard(json=json), key_file=key_file, url=url)


@keys_app.command("create")
def keys_create(
    key_file: KeyFile = None,
    name: KeyName = "",
    scope: Annotated[
        list[str] | None,
        typer.Option("--scope", metavar="NAME", help="inference, read, keys or withdraw; repeat it."),
    ] = None,
    requests_per_minute: PerMinute = 0,
    concurrency: Concurrency = 0,
    budget: Budget = "",
    days: Days = 0,
    url: Url = "",
    json: Json = False,
) -> None:
    """Make an API key that pays from this account. It is shown once.

    With --key-file the wallet signs in for this; else the stored key must have the scope keys. Without --scope the new
    key may ask and look (inference, read).
    """
    from parallelix.client.commands import keys
    from parallelix.client.commands.limits import Limits

    limits = Limits(requests_per_minute=requests_per_minute, concurrency=concurrency, budget=budget, days=days)
    keys.create(
        Console.standard(json=json), key_file=key_file, name=name, scopes=tuple(scope or ()), limits=limits, url=url
    )


@keys_app.command("revoke")
def keys_revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, key_…, or a session's, ses_…")],
    key_file: KeyFile = None,
    url: Url = "",
    json: Json = False,
) -> None:
    """Revoke an API key or a session of this account, at once and for good."""
    from parallelix.client.commands.keys import revoke

    revoke(Console.standard(json=json), key_id, key_file=key_file, url=url)


@coordinator_app.command("run")
def coordinator_run(
    folder: Folder = None,
    host: Annotated[str, typer.Option("--host", metavar="HOST", help="Where to listen (127.0.0.1).")] = "",
    port: Annotated[int | None, typer.Option("--port", metavar="PORT", help="Where to listen (8400).")] = None,
    deployment: Annotated[
        Path | None,
        typer.Option("--deployment", metavar="FILE", help="Run on the chain of this file of `chain deploy`."),
    ] = None,
    rpc: Annotated[
        str, typer.Option("--rpc", metavar="URL", help="That chain's endpoint; better in PARALLELIX_RPC_URL.")
    ] = "",
    json: Json = False,
) -> None:
    """Run a coordinator until Ctrl-C. Its log goes to standard error, its settings are in FOLDER/coordinator.toml."""
    from parallelix.client.commands.coordinator import run

    run(Console.standard(json=json), folder=folder, host=host, port=port, deployment=deployment, rpc=rpc)


@coordinator_app.command("grant")
def coordinator_grant(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="Any name; it exists once it has credits.")],
    amount: Annotated[str, typer.Argument(metavar="AMOUNT", help="Such as 100prlx or 5000wei.")],
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Give credits to an account of this machine's coordinator."""
    from parallelix.client.commands.coordinator import grant

    grant(Console.standard(json=json), folder=folder, account=account, amount=amount)


@coordinator_app.command("key")
def coordinator_key(
    account: Annotated[str, typer.Argument(metavar="[ACCOUNT]", help="Whose requests the key pays for.")] = "",
    name: KeyName = "",
    requests_per_minute: PerMinute = 0,
    concurrency: Concurrency = 0,
    budget: Budget = "",
    days: Days = 0,
    revoke: Annotated[str, typer.Option("--revoke", metavar="KEY_ID", help="Revoke this key instead.")] = "",
    list_keys: Annotated[bool, typer.Option("--list", help="List all keys instead.")] = False,
    folder: Folder = None,
    json: Json = False,
) -> None:
    """Make an API key for an account of this machine's coordinator. It is shown once."""
    from parallelix.client.commands import coordinator
    from parallelix.client.commands.limits import Limits

    console = Console.standard(json=json)
    if list_keys:
        coordinator.list_keys(console, folder=folder)
    elif revoke:
        coordinator.revoke_key(console, folder=folder, key_id=revoke)
    else:
        limits = Limits(requests_per_minute=requests_per_minute, concurrency=concurrency, budget=budget, days=days)
        coordinator.make_key(console, folder=folder, account=account, name=name, limits=limits)


@app.command(
    short_help="A whole network on this machine: devnet up.",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def devnet(context: typer.Context) -> int:
    """A whole network on this machine: a chain, a coordinator and nodes as processes of their own."""
    from parallelix.client.commands.extras import needing

    with needing("coordinator,embedded,chain"):
        from parallelix.devnet.cli import app as devnet_app
    code = devnet_app(list(context.args), prog_name=f"{PROGRAM} devnet", standalone_mode=False)
    return code if isinstance(code, int) else 0


@app.command(
    short_help="The contracts: deploy, show.",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def chain(context: typer.Context) -> int:
    """The contracts: deploy them to an Ethereum endpoint, look at a deployment."""
    from parallelix.client.commands.extras import needing

    with needing("chain"):
        from parallelix.chain.cli import app as chain_app
    code = chain_app(list(context.args), prog_name=f"{PROGRAM} chain", standalone_mode=False)
    return code if isinstance(code, int) else 0


@app.command(
    short_help="Deposits and stakes, by your own key: deposit, withdraw, register.",
    add_help_option=False,
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
)
def wallet(context: typer.Context) -> int:
    """Deposits and stakes of an account, by its own key, on the chain of a deployment."""
    from parallelix.client.commands.extras import needing

    with needing("chain"):
        from parallelix.client.commands.wallet import app as wallet_app
    code = wallet_app(list(context.args), prog_name=f"{PROGRAM} wallet", standalone_mode=False)
    return code if isinstance(code, int) else 0


@app.command(short_help="Print the version.")
def version(json: Json = False) -> None:
    """Print the version."""
    from parallelix.client.answers import VersionAnswer
    from parallelix.terminal import client_version

    console = Console.standard(json=json)
    console.plain(f"{PROGRAM} {client_version()}")
    console.value(VersionAnswer(version=client_version()))


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Every refusal is one line on standard error, with --json one object."""
    console = Console.standard(json="--json" in arguments)
    try:
        code = app(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except ClientError as error:
        console.error(error.code, error.message)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `request list | head` ends like this; Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        return _failed(console, error)
    return code if isinstance(code, int) else 0


def _failed(console: Console, error: Exception) -> int:
    describe: Any = getattr(error, "format_message", None)
    if describe is None:
        if os.environ.get("PARALLELIX_DEBUG"):
            raise error
        console.error(
            "client.failed",
            f"{type(error).__name__}: {str(error)[:300]}; if this should not be, report it with PARALLELIX_DEBUG=1",
        )
        return EXIT_FAILED
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(describe())
        return EXIT_USAGE
    message = " ".join(str(describe()).split())
    if not message:
        return 0 if getattr(error, "exit_code", 0) == 0 else EXIT_USAGE
    context: Any = getattr(error, "ctx", None)
    command = PROGRAM if context is None else context.command_path
    console.error("client.usage", f"{message[:1].lower()}{message[1:].rstrip('.?')}; see {command} --help")
    return EXIT_USAGE
