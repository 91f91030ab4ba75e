"""`parallelix chain`: deploy the five contracts, accept them as their owner, show a deployment, and what nodes earn.

Also `python -m parallelix.chain.cli`, where the `parallelix` command is not installed.
"""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
import typer

from parallelix.chain import deployment as deploying
from parallelix.chain import deployment_file, inspection, plan, rewards_print, rewards_table, wallet
from parallelix.chain.abi import Address
from parallelix.chain.deployment import FEE_GWEI_MAX, GWEI, Settings
from parallelix.chain.deployment_file import TOKEN, Deployment, Parameters, StepEntry
from parallelix.chain.errors import ChainError, DeploymentRefused
from parallelix.chain.inspection import Check
from parallelix.chain.plan import CONTRACTS
from parallelix.chain.rpc import connected
from parallelix.terminal import Console

PROGRAM = "parallelix chain"
ABOUT = "The contracts: deploy them, accept them as their owner, and look at a deployment."
LABEL_COLUMNS = 24
EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
T = TypeVar("T")

app = typer.Typer(
    name=PROGRAM,
    help=ABOUT,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
RPC_HELP = "The Ethereum JSON-RPC endpoint."
RPC_VARIABLES = ["PARALLELIX_RPC_URL", "PARALLELIX_RPC"]


class DeployAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `deploy --json` prints: the rest is in `file`. The owner must still accept the `unaccepted` contracts."""

    file: str
    chain_id: int
    first_block: int
    contracts: dict[str, Address]
    stream_id: int | None
    complete: bool
    unaccepted: tuple[str, ...]


class AcceptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `accept --json` prints: which contracts the owner owns from now on, and which it did before."""

    owner: Address
    accepted: tuple[str, ...]
    owned_before: tuple[str, ...]


class ShowAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What `show --json` prints. Without an endpoint there are no checks."""

    deployment: Deployment
    checks: tuple[Check, ...]
    holds: bool


def role(name: str, what: str) -> Any:
    return typer.Option(f"--{name}", metavar="ADDRESS", help=what)


@app.callback()
def chain() -> None:
    """The contracts: deploy them, accept them as their owner, and look at a deployment."""


@app.command(short_help="Deploy all five contracts, or finish what was begun.")
def deploy(
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", envvar=RPC_VARIABLES, help=RPC_HELP)],
    owner: Annotated[str, role("owner", "Names the roles, ends pauses; has to accept afterwards.")],
    validator: Annotated[str, role("validator", "Anchors batches of records.")],
    liveness: Annotated[str, role("liveness", "Reports which nodes are online.")],
    settler: Annotated[str, role("settler", "Settles spending and signs clearances.")],
    guardian: Annotated[str, role("guardian", "May pause reports, deposits and settlement.")],
    treasury: Annotated[str, role("treasury", "Gets the transfer tax and 10 % of usage.")],
    infrastructure: Annotated[str, role("infrastructure", "Gets 5 % of usage.")],
    lockup: Annotated[str, role("lockup", "Sablier Lockup, for the bootstrap stream.")] = "",
    key_file: Annotated[
        Path | None,
        typer.Option(metavar="PATH", help=f"The deployer's key, mode 0600; else {wallet.KEY_VARIABLE}."),
    ] = None,
    out: Annotated[Path, typer.Option(metavar="PATH", help="The deployment file.")] = Path("deployment.json"),
    withdrawal_delay_seconds: Annotated[
        int, typer.Option(metavar="SECONDS", min=1, max=86_400, help="How long a withdrawal without clearance takes.")
    ] = 86_400,
    daily_limit_prlx: Annotated[
        int,
        typer.Option(
            metavar="PRLX", min=0, max=100_000_000, help="Settled a day at most, unless the account says otherwise."
        ),
    ] = 10_000,
    max_fee_gwei: Annotated[
        int, typer.Option(metavar="GWEI", min=1, max=100_000, help="What a unit of gas may cost at most.")
    ] = FEE_GWEI_MAX,
    confirmations: Annotated[
        int, typer.Option(metavar="N", min=1, max=1_000, help="Blocks to wait for after the last step.")
    ] = 1,
    json: Json = False,
) -> int:
    """Deploy all five contracts, or finish what an earlier run began: run again, it goes on where it stopped."""
    console = Console.standard(json=json)
    parameters = Parameters(
        owner=owner,
        validator=validator,
        liveness=liveness,
        settler=settler,
        guardian=guardian,
        treasury=treasury,
        infrastructure=infrastructure,
        lockup=lockup,
        withdrawal_delay_seconds=withdrawal_delay_seconds,
        default_daily_limit=str(daily_limit_prlx * TOKEN),
    )
    settings = Settings(fee_most_wei=max_fee_gwei * GWEI, confirmations=confirmations)
    return _ended(console, lambda: _deploy(console, rpc, key_file, parameters, out, settings))


@app.command(short_help="As the new owner, accept the contracts.")
def accept(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A deployment file.")],
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", envvar=RPC_VARIABLES, help=RPC_HELP)],
    key_file: Annotated[Path, typer.Option(metavar="PATH", help="The owner's key, mode 0600.")],
    json: Json = False,
) -> int:
    """As the owner that a deployment names, accept each contract; those that it owns already are left alone."""
    console = Console.standard(json=json)
    return _ended(console, lambda: _accept(console, file, rpc, key_file))


@app.command(short_help="Print a deployment, and check it against the chain.")
def show(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A deployment file.")],
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", envvar=RPC_VARIABLES, help=RPC_HELP)] = "",
    json: Json = False,
) -> int:
    """Print a deployment; with an endpoint, check it against the chain (exit 1 where it does not hold)."""
    console = Console.standard(json=json)
    return _ended(console, lambda: _show(console, file, rpc))


@app.command(short_help="What each node earned on each day, and why.")
def rewards(
    deployment: Annotated[
        Path,
        typer.Option("--deployment", metavar="FILE", envvar="PARALLELIX_DEPLOYMENT", help="The deployment file."),
    ],
    rpc: Annotated[str, typer.Option("--rpc", metavar="URL", envvar=RPC_VARIABLES, help=RPC_HELP)],
    node: Annotated[int | None, typer.Option("--node", metavar="ID", min=1, help="This node only.")] = None,
    day: Annotated[str, typer.Option("--day", metavar="YYYY-MM-DD", help="This UTC day only.")] = "",
    block: Annotated[
        int | None, typer.Option("--block", metavar="N", min=0, help="As of this block; the newest by default.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Compare with what the contract says; exit 1 where it differs.")
    ] = False,
    json: Json = False,
) -> int:
    """What each node earned on each UTC day, computed from the events of the rewards contract alone."""
    console = Console.standard(json=json)
    return _ended(console, lambda: _rewards(console, deployment, rpc, node, day, block, check))


def _ended(console: Console, work: Any) -> int:
    """The exit code, with every refusal as one line on standard error."""
    try:
        return asyncio.run(work())
    except ChainError as error:
        console.clear_live()
        console.error(error.code, error.message)
        return EXIT_FAILED
    except KeyboardInterrupt:
        console.clear_live()
        console.note("stopped; run the same command again to go on")
        return EXIT_INTERRUPTED


class _Shown:
    """A deployment's progress on a terminal."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def waiting(self, step: str, what: str) -> None:
        self._console.live(f"{step}: {what}")

    def done(self, entry: StepEntry, contract: Address) -> None:
        self._console.clear_live()
        where = contract or f"block {entry.block_number}"
        self._console.marked("✓", entry.name, where, label_columns=max(LABEL_COLUMNS, len(entry.name)))


async def _deploy(
    console: Console, rpc: str, key_file: Path | None, parameters: Parameters, out: Path, settings: Settings
) -> int:
    account = wallet.key_from(key_file, os.environ)
    async with connected(rpc) as endpoint:
        chain_id = await endpoint.chain_id()
        console.heading(f"deploying to chain {chain_id} from {account.address}")
        done = await deploying.deploy(endpoint, account, parameters, out, _Shown(console), settings)
        owners = await inspection.owners(endpoint, done)
    unaccepted = tuple(each.name.removeprefix("owner of ") for each in owners if not each.holds)
    console.done(f"all five contracts are deployed; {out} says where")
    if unaccepted:
        console.warn(
            f"{done.parameters.owner} must still accept {', '.join(unaccepted)}: {PROGRAM} accept {out} --key-file …"
        )
    contracts = {name: entry.address for name, entry in done.contracts.items()}
    console.value(
        DeployAnswer(
            file=str(out),
            chain_id=done.chain_id,
            first_block=done.first_block,
            contracts=contracts,
            stream_id=done.stream_id,
            complete=done.complete,
            unaccepted=unaccepted,
        )
    )
    return 0


async def _accept(console: Console, file: Path, rpc: str, key_file: Path) -> int:
    found = _read(file)
    account = wallet.key_from(key_file, os.environ)
    accepted: list[str] = []
    async with connected(rpc) as endpoint:
        await deploying.require_code(endpoint, found)
        if not found.complete:
            raise DeploymentRefused(f"{file}: the deployment is not complete; run `{PROGRAM} deploy` again first")
        offered = await inspection.offered_to(endpoint, found, account.address)
        sender = wallet.Wallet(endpoint, account)
        for name in offered:
            console.live(f"{name}: sending")
            receipt = await sender.send(plan.accept_ownership(found, name))
            console.clear_live()
            console.marked("✓", name, f"block {receipt.block_number}", label_columns=LABEL_COLUMNS)
            accepted.append(name)
    before = tuple(name for name in plan.OWNED if name not in accepted)
    console.done(f"{account.address} owns {', '.join(plan.OWNED)}")
    console.value(AcceptAnswer(owner=account.address, accepted=tuple(accepted), owned_before=before))
    return 0


def _read(file: Path) -> Deployment:
    found = deployment_file.read(file)
    if found is None:
        raise DeploymentRefused(f"{file}: there is no such file; `{PROGRAM} deploy --out {file}` writes it")
    return found


async def _show(console: Console, file: Path, rpc: str) -> int:
    found = _read(file)
    checks: list[Check] = []
    if rpc:
        async with connected(rpc) as endpoint:
            checks = await inspection.inspect(endpoint, found)
    _print(console, found)
    _print_checks(console, checks)
    holds = not inspection.failed(checks)
    console.value(ShowAnswer(deployment=found, checks=tuple(checks), holds=holds))
    return 0 if holds else EXIT_FAILED


async def _rewards(
    console: Console, file: Path, rpc: str, node: int | None, day: str, block: int | None, check: bool
) -> int:
    found = _read(file)
    wanted = rewards_table.parse_day(day) if day else None
    async with connected(rpc) as endpoint:
        console.live("reading the events of the rewards contract")
        table = await rewards_table.read_table(endpoint, found, block=block, node_id=node, day=wanted, check=check)
    console.clear_live()
    rewards_print.show(console, table)
    console.value(table)
    return 0 if table.holds else EXIT_FAILED


def _print(console: Console, found: Deployment) -> None:
    state = "complete" if found.complete else "not complete: run `chain deploy` again"
    console.heading(f"deployment on chain {found.chain_id}, {state}")
    for name in CONTRACTS:
        entry = found.contracts.get(name)
        console.fact(name, entry.address if entry else "not deployed yet", label_columns=LABEL_COLUMNS)
    facts = {"deployer": found.deployer, **{name: getattr(found.parameters, name) for name in deployment_file.ROLES}}
    if found.parameters.lockup:
        facts |= {"lockup": found.parameters.lockup, "stream": str(found.stream_id or "not opened yet")}
    facts |= {"first block": str(found.first_block)}
    for name, value in facts.items():
        console.fact(name, value, label_columns=LABEL_COLUMNS)


def _print_checks(console: Console, checks: list[Check]) -> None:
    if not checks:
        return
    console.heading("on the chain")
    for check in checks:
        if check.holds:
            console.marked("✓", check.name, check.found, label_columns=31)
        else:
            symbol = "!" if check.may_change else "✗"
            console.marked(symbol, check.name, f"{check.found}, in the file {check.expected}", label_columns=31)


if __name__ == "__main__":
    sys.exit(app(prog_name=PROGRAM, standalone_mode=False) or 0)
