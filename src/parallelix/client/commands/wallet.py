"""`parallelix wallet`: deposits and stakes of one account, by its own key, on the chain that a deployment file names.

Each command says what it is going to do, with how much and in which contract, before it sends anything.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from parallelix.chain import deployment_file, holding, wallet
from parallelix.chain.abi import Address
from parallelix.chain.clearance import Clearance, Signature
from parallelix.chain.deployment_file import Deployment
from parallelix.chain.errors import WalletRefused
from parallelix.chain.holding import NODE_STATES, Done, Holder, Holdings, Step
from parallelix.client import amounts
from parallelix.client.answers import BalanceAnswer, EarnedAnswer, TransactionAnswer, WalletAnswer
from parallelix.client.commands.on_chain import deployment_of, ended, on_chain
from parallelix.client.commands.opening import asked_as, moment
from parallelix.client.errors import ClientError, ConfigRefused
from parallelix.protocol.accounts import ClearanceView
from parallelix.protocol.encoding import from_hex
from parallelix.protocol.errors import Malformed
from parallelix.terminal import Console

PROGRAM = "parallelix wallet"
ABOUT = "Deposits and stakes of an account, by its own key: deposit, withdraw, register, claim."
INTERRUPTED = "stopped; what was sent may still be taken: see `balance` before you run it again"
LABEL_COLUMNS = 13
KEY_FILE_VARIABLE = "PARALLELIX_KEY_FILE"
DEPLOYMENT_VARIABLE = "PARALLELIX_DEPLOYMENT"
RPC_VARIABLES = ["PARALLELIX_RPC_URL", "PARALLELIX_RPC"]
T = TypeVar("T")

app = typer.Typer(
    name=PROGRAM,
    help=ABOUT,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)

DeploymentFile = Annotated[
    Path,
    typer.Option("--deployment", metavar="FILE", envvar=DEPLOYMENT_VARIABLE, help="The deployment file."),
]
RpcUrl = Annotated[
    str, typer.Option("--rpc", metavar="URL", envvar=RPC_VARIABLES, help="An Ethereum JSON-RPC endpoint of its chain.")
]
KeyFile = Annotated[
    Path, typer.Option("--key-file", metavar="PATH", envvar=KEY_FILE_VARIABLE, help="The account's key, mode 0600.")
]
Amount = Annotated[str, typer.Argument(metavar="AMOUNT", help="Such as 100prlx or 5000wei.")]
NodeId = Annotated[int, typer.Argument(metavar="NODE", min=1, help="The id that `register` gave.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say what would be sent.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]


@app.callback()
def wallet_() -> None:
    """Deposits and stakes of an account, by its own key. Every transaction is explained before it is sent."""


# Deposits -------------------------------------------------------------------------------------------------------------


@app.command(short_help="What the account has, and what of it is where.")
def balance(
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="PATH", envvar=KEY_FILE_VARIABLE, help="The account's key, mode 0600."),
    ] = None,
    address: Annotated[str, typer.Option("--address", metavar="ADDRESS", help="Any account, without its key.")] = "",
    json: Json = False,
) -> int:
    """Show what an account has in the wallet and in the vault, and its limit. Nothing is sent."""
    console = Console.standard(json=json)

    def work() -> int:
        account = (
            deployment_file.address_of(address, name="address")
            if address
            else wallet.key_from(_require_key_file(key_file), os.environ).address
        )
        found = on_chain(rpc, lambda endpoint: holding.look(endpoint, deployment_of(deployment), account))
        _print_balance(console, found)
        console.value(_balance_answer(found))
        return 0

    return ended(console, work, interrupted=INTERRUPTED)


@app.command(short_help="Deposit PRLX, from which requests are paid.")
def deposit(
    amount: Amount,
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    approve: Annotated[bool, typer.Option("--approve", help="By an approval of its own instead of a permit.")] = False,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Move PRLX into the account's deposit in the vault. With a signed permit that is one transaction."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        amount_wei = amounts.read(amount, name="amount")
        after_wei = task.held(lambda holder: holder.deposit(amount_wei, by_approval=approve))
        if after_wei is not None:
            task.console.done(f"the deposit is {amounts.shown(after_wei)} now")
            task.console.remark("credits follow once the coordinator has seen it confirmed")
        return task.answer(amount_wei=amount_wei, deposit_wei=after_wei)

    return ended(task.console, work, interrupted=INTERRUPTED)


@app.command(short_help="The most that may be settled of the deposit in a day.")
def limit(
    amount: Amount,
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Set how much of the deposit may be spent in a UTC day. Raising acts at once, lowering days later."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        limit_wei = amounts.read(amount, name="amount")
        done = task.held(lambda holder: holder.set_limit(limit_wei))
        if done is not None:
            when = moment(1000 * done.effective_from)
            task.console.done(f"the daily limit is {amounts.shown(done.limit)} from {when} on")
        return task.answer(amount_wei=limit_wei, effective_at=None if done is None else done.effective_from)

    return ended(task.console, work, interrupted=INTERRUPTED)


@app.command(short_help="Get PRLX out of the deposit.")
def withdraw(
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    amount: Annotated[str, typer.Argument(metavar="[AMOUNT]", help="Such as 100prlx; not for --take-back.")] = "",
    alone: Annotated[
        bool, typer.Option("--alone", help="Without the coordinator: ask now, run it again after the delay.")
    ] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Ask anew where a request is open; the delay starts again.")
    ] = False,
    take_back: Annotated[bool, typer.Option("--take-back", help="Take an open request back instead.")] = False,
    url: Annotated[str, typer.Option("--url", metavar="URL", help="The coordinator's base URL.")] = "",
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Withdraw at once with the coordinator's clearance, or --alone: ask, and run it again when the delay is over."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        if take_back:
            return _take_back(task)
        wanted_wei = amounts.read(amount, name="amount") if amount else 0
        found = task.look()
        if found.requested_wei and found.at >= found.withdrawable_at and not replace:
            return _pay_out(task, found, wanted_wei)
        if not wanted_wei:
            return _say_waiting(task, found)
        if not alone:
            return _withdraw_cleared(task, wanted_wei, url)
        if found.requested_wei and not replace:
            return _say_waiting(task, found)
        return _request(task, wanted_wei)

    return ended(task.console, work, interrupted=INTERRUPTED)


def _pay_out(task: _Task, found: Holdings, wanted_wei: int) -> int:
    if wanted_wei and wanted_wei != found.requested_wei:
        task.console.warn(f"the open request is for {amounts.shown(found.requested_wei)}; this pays that, and no more")
    done = task.held(lambda holder: holder.pay_out(found.requested_wei))
    if done is not None:
        task.console.done(f"paid {amounts.shown(done.amount)}; {amounts.shown(done.deposit)} stay in the deposit")
    return task.answer(
        amount_wei=found.requested_wei if done is None else done.amount,
        deposit_wei=None if done is None else done.deposit,
    )


def _say_waiting(task: _Task, found: Holdings) -> int:
    if not found.requested_wei:
        raise ConfigRefused("amount: is missing, and no request is open; say how much, such as 100prlx")
    when = moment(1000 * found.withdrawable_at)
    task.console.warn(f"a request for {amounts.shown(found.requested_wei)} is open, and can be paid from {when} on")
    task.console.remark("run the same command then; --replace asks anew, --take-back takes it back")
    return task.answer(state="waiting", amount_wei=found.requested_wei, effective_at=found.withdrawable_at)


def _request(task: _Task, wanted_wei: int) -> int:
    done = task.held(lambda holder: holder.request_withdrawal(wanted_wei))
    if done is None:
        return task.answer(amount_wei=wanted_wei)
    when = moment(1000 * done.available_at)
    task.console.done(f"asked for {amounts.shown(done.amount)}; it can be paid from {when} on")
    if done.amount < wanted_wei:
        task.console.warn(f"that is the whole deposit; {amounts.shown(wanted_wei)} is more than there is")
    task.console.remark(f"then run it again: {PROGRAM} withdraw --alone")
    return task.answer(state="waiting", amount_wei=done.amount, effective_at=done.available_at)


def _take_back(task: _Task) -> int:
    if task.held(lambda holder: holder.take_withdrawal_back()):
        task.console.done("the request is taken back; the amount can be spent again")
    return task.answer()


def _withdraw_cleared(task: _Task, wanted_wei: int, url: str) -> int:
    try:
        view = asked_as(task.console, lambda client: client.clearance(wanted_wei), key_file=task.key_file, url=url)
    except ClientError:
        task.console.note(f"without the coordinator: {PROGRAM} withdraw {amounts.typed(wanted_wei)} --alone")
        raise
    clearance, signature = _clearance_of(view, task.key_address, wanted_wei, deployment_of(task.deployment))
    task.console.remark(
        f"the coordinator says that {amounts.shown(clearance.cumulative_spent)} were ever spent; what of it is not "
        "settled yet is settled with this"
    )
    done = task.held(lambda holder: holder.withdraw_cleared(clearance, signature))
    if done is not None:
        task.console.done(f"paid {amounts.shown(done.amount)}; {amounts.shown(done.deposit)} stay in the deposit")
    return task.answer(amount_wei=wanted_wei, deposit_wei=None if done is None else done.deposit)


def _clearance_of(
    view: ClearanceView, account: Address, amount_wei: int, deployment: Deployment
) -> tuple[Clearance, Signature]:
    """Raises `WalletRefused` for a clearance that is not what was asked for."""
    expected = (account.lower(), amount_wei, deployment.chain_id, deployment.address(holding.VAULT).lower())
    given = (view.account.lower(), int(view.amount_wei), view.chain_id, view.vault.lower())
    if given != expected:
        raise WalletRefused(
            f"the coordinator cleared {view.amount_wei} wei for {view.account} at vault {view.vault} on chain "
            f"{view.chain_id}; asked for were {amount_wei} wei for {account} at {deployment.address(holding.VAULT)} on "
            f"chain {deployment.chain_id}: sign in with this account, at the coordinator of this deployment"
        )
    clearance = Clearance(
        account=account,
        amount=amount_wei,
        cumulative_spent=int(view.cumulative_spent_wei),
        nonce=view.nonce,
        expiry=view.expiry,
    )
    return clearance, Signature(v=view.v, r=_bytes32(view.r, "r"), s=_bytes32(view.s, "s"))


def _bytes32(text: str, name: str) -> bytes:
    try:
        return from_hex(text, name=name, length_bytes=32)
    except Malformed as error:
        raise ConfigRefused(error.message) from error


# Nodes ----------------------------------------------------------------------------------------------------------------


@app.command(short_help="Stake for a new node.")
def register(
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    tier: Annotated[int, typer.Option("--tier", metavar="TIER", help="The hardware tier, 1 to 4.")],
    stake: Annotated[str, typer.Option("--stake", metavar="AMOUNT", help="Such as 50000prlx, the least.")],
    node_key_hash: Annotated[
        str, typer.Option("--node-key-hash", metavar="HASH", help="nodeKeyHash, as `parallelix-node init` printed it.")
    ],
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Stake PRLX for one new node of this account. The whole stake comes back seven days after `unstake`."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        stake_wei = amounts.read(stake, name="stake")
        key_hash = _bytes32(node_key_hash, "node key hash")
        node_id = task.held(lambda holder: holder.register(tier=tier, stake_wei=stake_wei, node_key_hash=key_hash))
        following = "" if node_id is None else f"parallelix-node start --node-id {node_id}"
        if node_id is not None:
            task.console.done(f"node {node_id} is registered, with a stake of {amounts.shown(stake_wei)}")
            task.console.remark(f"next, on its machine: {following}")
        return task.answer(amount_wei=stake_wei, node_id=node_id, following=following)

    return ended(task.console, work, interrupted=INTERRUPTED)


@app.command(short_help="Retire a node for good; its stake comes free in 7 days.")
def unstake(
    node: NodeId,
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Retire a node for good. From seven days later on, `withdraw-stake` pays its whole stake."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        done = task.held(lambda holder: holder.unstake(node))
        following = "" if done is None else f"{PROGRAM} withdraw-stake {node}"
        if done is not None:
            task.console.done(
                f"node {node} is retired; its stake is free from {moment(1000 * done.withdrawable_at)} on"
            )
            task.console.remark(f"then: {following}")
        effective_at = None if done is None else done.withdrawable_at
        return task.answer(node_id=node, effective_at=effective_at, following=following)

    return ended(task.console, work, interrupted=INTERRUPTED)


@app.command("withdraw-stake", short_help="Get the stake of a retired node back.")
def withdraw_stake(
    node: NodeId,
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Get the whole stake of a node back, once its cooldown of seven days is over."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        paid_wei = task.held(lambda holder: holder.withdraw_stake(node))
        if paid_wei is not None:
            task.console.done(f"paid {amounts.shown(paid_wei)}, the whole stake of node {node}")
        return task.answer(amount_wei=paid_wei, node_id=node)

    return ended(task.console, work, interrupted=INTERRUPTED)


@app.command("earned", short_help="What a node has earned and nobody claimed.")
def earned_(node: NodeId, deployment: DeploymentFile, rpc: RpcUrl, json: Json = False) -> int:
    """Show a node's stake, state and unclaimed rewards. Nothing is sent, and no key is needed."""
    console = Console.standard(json=json)

    def work() -> int:
        found, due_wei = on_chain(rpc, lambda endpoint: holding.earned(endpoint, deployment_of(deployment), node))
        state = NODE_STATES[found.state]
        console.heading(f"node {node}")
        console.fact("owner", found.owner, label_columns=LABEL_COLUMNS)
        console.fact("state", state, label_columns=LABEL_COLUMNS)
        console.fact("stake", amounts.shown(found.stake), label_columns=LABEL_COLUMNS)
        if found.withdrawable_at:
            console.fact("stake free", moment(1000 * found.withdrawable_at), label_columns=LABEL_COLUMNS)
        console.fact("earned", amounts.shown(due_wei), label_columns=LABEL_COLUMNS)
        console.value(
            EarnedAnswer(
                node_id=node,
                owner=found.owner,
                state=state,
                stake_wei=str(found.stake),
                stake_free_at=found.withdrawable_at,
                earned_wei=str(due_wei),
            )
        )
        return 0

    return ended(console, work, interrupted=INTERRUPTED)


@app.command(short_help="Pay out what a node has earned, to its owner.")
def claim(
    node: NodeId,
    deployment: DeploymentFile,
    rpc: RpcUrl,
    key_file: KeyFile,
    dry_run: DryRun = False,
    json: Json = False,
) -> int:
    """Pay out what a node has earned. It always goes to the node's owner, whoever claims it."""
    task = _Task(deployment, rpc, key_file, dry_run=dry_run, json=json)

    def work() -> int:
        paid_wei = task.held(lambda holder: holder.claim(node))
        if paid_wei is not None:
            task.console.done(f"paid {amounts.shown(paid_wei)} to the owner of node {node}")
        return task.answer(amount_wei=paid_wei, node_id=node)

    return ended(task.console, work, interrupted=INTERRUPTED)


# ----------------------------------------------------------------------------------------------------------------------


class _Task:
    """One command with a key: it explains each transaction, sends it unless it is only a rehearsal, and remembers."""

    def __init__(self, deployment: Path, rpc: str, key_file: Path, *, dry_run: bool, json: bool) -> None:
        self.console = Console.standard(json=json)
        self.deployment = deployment
        self._rpc = rpc
        self.key_file = key_file
        self._dry_run = dry_run
        self._steps: list[TransactionAnswer] = []

    @property
    def key_address(self) -> Address:
        return wallet.key_from(self.key_file, os.environ).address

    def held(self, act: Callable[[Holder], Awaitable[T]]) -> T:
        account = wallet.key_from(self.key_file, os.environ)
        deployment = deployment_of(self.deployment)
        return on_chain(self._rpc, lambda endpoint: act(Holder(endpoint, deployment, account, self)))

    def look(self) -> Holdings:
        account, deployment = self.key_address, deployment_of(self.deployment)
        return on_chain(self._rpc, lambda endpoint: holding.look(endpoint, deployment, account))

    def before(self, step: Step) -> bool:
        how_much = "" if step.amount_wei is None else f": {amounts.shown(step.amount_wei)}"
        self.console.heading(f"{step.what}{how_much}")
        self.console.pair(step.contract, step.address)
        if self._dry_run:
            self._steps.append(_transaction(step))
        else:
            self.console.live("sending, and waiting for a block")
        return not self._dry_run

    def after(self, done: Done) -> None:
        self.console.clear_live()
        self._steps.append(_transaction(done.step, transaction_hash=done.transaction_hash, block=done.block))
        self.console.pair("in block", str(done.block))
        self.console.pair("transaction", done.transaction_hash)

    def answer(
        self,
        *,
        state: str = "done",
        amount_wei: int | None = None,
        deposit_wei: int | None = None,
        node_id: int | None = None,
        effective_at: int | None = None,
        following: str = "",
    ) -> int:
        if self._dry_run and state == "done":
            state = "explained"
            self.console.warn("nothing was sent; without --dry-run it is")
        told: Any = state
        self.console.value(
            WalletAnswer(
                state=told,
                account=self.key_address,
                transactions=tuple(self._steps),
                amount_wei=None if amount_wei is None else str(amount_wei),
                deposit_wei=None if deposit_wei is None else str(deposit_wei),
                node_id=node_id,
                effective_at=effective_at,
                next_command=following,
            )
        )
        return 0


def _transaction(step: Step, *, transaction_hash: str = "", block: int = 0) -> TransactionAnswer:
    return TransactionAnswer(
        what=step.what,
        amount_wei=None if step.amount_wei is None else str(step.amount_wei),
        contract=step.contract,
        address=step.address,
        transaction_hash=transaction_hash,
        block=block,
    )


def _print_balance(console: Console, found: Holdings) -> None:
    def fact(label: str, value: str) -> None:
        console.fact(label, value, label_columns=LABEL_COLUMNS)

    console.heading("account")
    fact("address", found.account)
    fact("for fees", _ether(found.fees_wei))
    fact("in wallet", amounts.shown(found.prlx_wei))
    fact("deposit", amounts.shown(found.deposit_wei))
    fact("ever settled", amounts.shown(found.settled_wei))
    fact("daily limit", amounts.shown(found.limit_wei))
    if found.lower_limit_from:
        fact("lower limit", f"{amounts.shown(found.lower_limit_wei)} from {moment(1000 * found.lower_limit_from)} on")
    if found.requested_wei:
        fact("asked for", f"{amounts.shown(found.requested_wei)}, from {moment(1000 * found.withdrawable_at)} on")


def _ether(wei: int) -> str:
    return amounts.shown(wei).replace("PRLX", "ETH")


def _balance_answer(found: Holdings) -> BalanceAnswer:
    return BalanceAnswer(
        account=found.account,
        fees_wei=str(found.fees_wei),
        prlx_wei=str(found.prlx_wei),
        deposit_wei=str(found.deposit_wei),
        requested_wei=str(found.requested_wei),
        withdrawable_at=found.withdrawable_at,
        settled_wei=str(found.settled_wei),
        limit_wei=str(found.limit_wei),
        lower_limit_wei=str(found.lower_limit_wei),
        lower_limit_from=found.lower_limit_from,
    )


def _require_key_file(path: Path | None) -> Path:
    if path is None:
        raise ConfigRefused("no account: give --address ADDRESS, or --key-file PATH (mode 0600)")
    return path
