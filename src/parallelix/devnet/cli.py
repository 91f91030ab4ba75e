"""`parallelix devnet up`: a chain, a coordinator and nodes on this machine, until Ctrl-C.

Also `python -m parallelix.devnet.cli up`, where the `parallelix` command is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import msgspec
import typer

from parallelix import private_files
from parallelix.chain.errors import ChainError
from parallelix.devnet.anvil import ChainMissing, find_anvil, find_sablier
from parallelix.devnet.chain import ChainPlan, Stake
from parallelix.devnet.model import MODEL, ModelFileMissing, demonstration_catalogue, demonstration_model
from parallelix.devnet.network import CHAIN_ID, REQUESTER_WALLET, Network, Plan, free_port, is_free, real_node
from parallelix.devnet.processes import ProcessError
from parallelix.devnet.wallet_calls import CallRefused
from parallelix.terminal import Console

if TYPE_CHECKING:
    from parallelix.devnet.processes import Child

PROGRAM = "parallelix devnet"
PORT = 8400
CHAIN_PORT = 8545
NODES = 3
NODES_MAX = 32
"""Each is three processes' worth of memory, near 250 MiB, on one machine."""
SLOTS = 4
SETTINGS = {
    "audits": True,
    "batch_seconds": 5.0,
    "heartbeat_seconds": 2.0,
    "offline_seconds": 10.0,
    "challenge_retry_seconds": 10.0,
    "epoch_seconds": 300.0,
    "audit_queue_seconds": 60.0,
}
"""Quicker than a public network, so that whoever kills a node sees what comes of it."""
CHAIN_SETTINGS = {
    # anvil reorganises nothing by itself; one block more shows that waiting for it works.
    "confirmations": 1,
    "chain_poll_seconds": 1.0,
    "settle_seconds": 20.0,
    "liveness_seconds": 20.0,
    "online_after_slots": 1,
}
API_KEY_FILE = "api-key"
LOCK_FILE = ".lock"
LOOK_SECONDS = 0.5
LABEL_COLUMNS = 11
COLUMNS = 80
EXIT_FAILED = 1

app = typer.Typer(
    name=PROGRAM,
    help="A whole network on this machine, for trying things out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


class NodeAnswer(msgspec.Struct, frozen=True, kw_only=True):
    number: int
    node_id: str
    pid: int
    home: str


class ChainAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """`keys` is the folder of the wallets' keys; `stream` whether Sablier pays the bootstrap rewards."""

    rpc_url: str
    deployment_file: str
    keys: str
    requester: str
    stream: bool
    pid: int


class UpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints once everything runs. `url` also serves the OpenAI shapes, below /v1. Nodes that are not
    staked any more are left out; `chain` is null with --no-chain."""

    url: str
    api_key: str
    model: str
    folder: str
    coordinator_pid: int
    nodes: tuple[NodeAnswer, ...]
    chain: ChainAnswer | None


@app.callback()
def devnet() -> None:
    """A whole network on this machine, for trying things out."""


@app.command()
def up(
    folder: Annotated[
        Path | None, typer.Option(help="Where everything lies, to go on with later; a temporary one by default.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(min=1, max=65535, help=f"The coordinator's; {PORT} or a free one by default.")
    ] = None,
    nodes: Annotated[int, typer.Option(min=1, max=NODES_MAX, help="How many nodes.")] = NODES,
    no_chain: Annotated[
        bool, typer.Option("--no-chain", help="Without stakes and deposits: a file and grants stand in.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> int:
    """Run a chain, a coordinator and nodes as processes of their own, until Ctrl-C; print what to try."""
    console = Console.standard(json=json)
    try:
        if port is not None and not is_free(port):
            raise ProcessError(f"--port {port}: something listens there already; stop it, or choose another port")
        chain = None if no_chain else _chain_plan()
        with _folder(folder) as chosen:
            plan = Plan(
                folder=chosen,
                catalogue=demonstration_catalogue(),
                node_command=real_node(demonstration_model(), slots=SLOTS),
                node_count=nodes,
                settings=SETTINGS if chain is None else SETTINGS | CHAIN_SETTINGS,
                port=port or _port(PORT),
                chain=chain,
            )
            return asyncio.run(_up(console, plan))
    except (ProcessError, ChainError, ChainMissing, CallRefused, ModelFileMissing, OSError) as error:
        console.clear_live()
        console.error("devnet.failed", str(error))
        return EXIT_FAILED
    except asyncio.CancelledError:
        console.clear_live()
        console.error("devnet.failed", "stopped at once by a second signal; what was not written down yet may be lost")
        return EXIT_FAILED


def _chain_plan() -> ChainPlan:
    return ChainPlan(anvil=find_anvil(os.environ), sablier=find_sablier(os.environ), port=_port(CHAIN_PORT))


def _port(wanted: int) -> int:
    return wanted if is_free(wanted) else free_port()


async def _up(console: Console, plan: Plan) -> int:
    network = Network(plan)
    _cancel_on_signals()
    what = "a coordinator" if plan.chain is None else "a chain, a coordinator"
    console.heading(f"ParalleliX devnet: {what} and {_count(plan.node_count)} on this machine")
    try:
        await _start(console, network)
        secret = await api_key(network)
        await network.accepts(secret)
        _tell(console, network, secret)
        await _watch(console, network)
    except asyncio.CancelledError:
        console.clear_live()
    finally:
        console.live("stopping")
        await network.stop()
        console.clear_live()
        console.done("stopped; no process is left")
    return 0


async def _start(console: Console, network: Network) -> None:
    console.live("making keys")
    await asyncio.to_thread(network.prepare)
    console.live("starting the chain")
    await network.start_chain(console.live)
    console.live("starting the coordinator")
    await network.start_coordinator()
    for number in network.staked:
        network.start_node(number)
    console.live("waiting for the nodes")
    await network.online(len(network.staked))
    console.clear_live()


async def api_key(network: Network) -> str:
    """The one that the folder has, else a new one with credits."""
    path = network.plan.folder / API_KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    if network.chain is None:
        secret = await asyncio.to_thread(network.new_key)
    else:
        secret = await network.wallet_key("devnet")
    private_files.create(path, f"{secret}\n".encode())
    return secret


def _tell(console: Console, network: Network, secret: str) -> None:
    coordinator = network.coordinator
    assert coordinator is not None
    console.done(f"coordinator {network.url} · pid {coordinator.pid}")
    for number, seat in network.seats.items():
        if number in network.nodes:
            console.done(f"node {number} online · id {seat.node_id} · pid {network.nodes[number].pid}")
        else:
            console.warn(f"node {number} not started · id {seat.node_id} · {_unstaked(network.stakes[number])}")
    _tell_chain(console, network)
    console.fact("model", f"{MODEL}, very small: a demonstration", label_columns=LABEL_COLUMNS)
    console.fact("API page", f"{network.url}/schema", label_columns=LABEL_COLUMNS)
    console.fact("files", str(network.plan.folder), label_columns=LABEL_COLUMNS)
    console.plain("")
    for line in what_to_try(network.url, secret, _chain_answer(network)):
        console.plain(line)
    console.plain("")
    console.value(
        UpAnswer(
            url=network.url,
            api_key=secret,
            model=MODEL,
            folder=str(network.plan.folder),
            coordinator_pid=coordinator.pid,
            nodes=tuple(
                NodeAnswer(number=number, node_id=str(seat.node_id), pid=network.nodes[number].pid, home=str(seat.home))
                for number, seat in network.seats.items()
                if number in network.nodes
            ),
            chain=_chain_answer(network),
        )
    )


def _tell_chain(console: Console, network: Network) -> None:
    chain = _chain_answer(network)
    if chain is None:
        return
    if not chain.stream:
        console.warn("no stream of rewards: Sablier's packages are not here; `make setup-chain` in a clone gets them")
    console.fact("chain", f"{chain.rpc_url} · id {CHAIN_ID} · pid {chain.pid}", label_columns=LABEL_COLUMNS)
    console.fact("contracts", chain.deployment_file, label_columns=LABEL_COLUMNS)
    console.fact("wallets", chain.keys, label_columns=LABEL_COLUMNS)
    console.fact("requester", chain.requester, label_columns=LABEL_COLUMNS)


def _chain_answer(network: Network) -> ChainAnswer | None:
    chain = network.chain
    if chain is None:
        return None
    assert chain.anvil.process is not None
    return ChainAnswer(
        rpc_url=chain.url,
        deployment_file=str(chain.deployment_path),
        keys=str(chain.key_file(REQUESTER_WALLET).parent),
        requester=chain.account(REQUESTER_WALLET).address,
        stream=bool(chain.deployment.parameters.lockup),
        pid=chain.anvil.process.pid,
    )


def _unstaked(stake: Stake) -> str:
    ends = time.strftime("%Y-%m-%d %H:%M", time.localtime(stake.withdrawable_at))
    return f"its stake was asked back, and can be withdrawn from {ends}"


def what_to_try(url: str, api_key: str, chain: ChainAnswer | None = None) -> list[str]:
    """Lines to copy into another terminal, none longer than 80 columns but for paths."""
    program = "parallelix" if shutil.which("parallelix") else str(Path(sys.executable).with_name("parallelix"))
    python = Path(sys.executable).name if shutil.which("python") == sys.executable else sys.executable
    return [
        "// in another terminal",
        f"export PARALLELIX_URL={url}",
        f"export PARALLELIX_API_KEY={api_key}",
        "",
        *_fitted(program, f'ask "How many days does the cooldown last?" --model {MODEL}'),
        "",
        "curl -N $PARALLELIX_URL/v1/chat/completions \\",
        '  -H "Authorization: Bearer $PARALLELIX_API_KEY" \\',
        '  -H "Content-Type: application/json" \\',
        f'  -d \'{{"model": "{MODEL}", "stream": true, "messages":',
        '       [{"role": "user", "content": "Can my stake be slashed?"}]}\'',
        "",
        "# the OpenAI SDK (pip install openai)",
        "export OPENAI_BASE_URL=$PARALLELIX_URL/v1 OPENAI_API_KEY=$PARALLELIX_API_KEY",
        f"{python} -c '",
        "from openai import OpenAI",
        "answer = OpenAI().chat.completions.create(",
        f'    model="{MODEL}",',
        '    messages=[{"role": "user", "content": "Tell me a story."}])',
        "print(answer.choices[0].message.content)'",
        *(_what_to_look_at(program, chain) if chain is not None else ()),
    ]


def _what_to_look_at(program: str, chain: ChainAnswer) -> list[str]:
    """What the contracts say, to the requester and to anybody."""
    return [
        "",
        "# its wallet, and what the nodes earn",
        f"export PARALLELIX_RPC_URL={chain.rpc_url}",
        f"export PARALLELIX_DEPLOYMENT={chain.deployment_file}",
        f"export PARALLELIX_KEY_FILE={chain.keys}/{REQUESTER_WALLET}.key",
        f"{program} wallet balance",
        f"{program} chain rewards --check",
    ]


def _fitted(program: str, arguments: str) -> list[str]:
    line = f"{program} {arguments}"
    return [line] if len(line) <= COLUMNS else [f"{program} \\", f"  {arguments}"]


async def _watch(console: Console, network: Network) -> None:
    """Whoever kills a process wants to see what happens then: a node stays away, the coordinator is started again."""
    running = dict(network.nodes)
    while True:
        for number, node in list(running.items()):
            if not node.running:
                del running[number]
                console.warn(f"node {number} {_ending(node)}; the others go on")
        assert network.coordinator is not None
        if network.chain is not None:
            network.chain.require_running()
        if not network.coordinator.running:
            await _start_again(console, network, network.coordinator)
        with contextlib.suppress(httpx.HTTPError):
            view = await network.view()
            console.live(
                f"up · nodes online {view.nodes_online} · requests open {view.requests_open}"
                f" · records {view.records} · ctrl-c to stop"
            )
        await asyncio.sleep(LOOK_SECONDS)


async def _start_again(console: Console, network: Network, ended: Child) -> None:
    """Raises `ProcessError` where it ended by itself."""
    if (ended.exit_code or 0) >= 0:
        raise ProcessError(f"the coordinator {_ending(ended)}:\n{ended.tail()}")
    console.warn(f"the coordinator {_ending(ended)}; starting it again")
    await network.start_coordinator()
    console.done(f"coordinator {network.url} · what was open goes on")


def _count(nodes: int) -> str:
    return "one node" if nodes == 1 else f"{nodes} nodes"


def _ending(child: Child) -> str:
    code = child.exit_code or 0
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def _cancel_on_signals() -> None:
    """The first one stops everything in order, a second one at once."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)


@contextlib.contextmanager
def _folder(chosen: Path | None) -> Generator[Path]:
    if chosen is None:
        with tempfile.TemporaryDirectory(prefix="parallelix-devnet-") as temporary:
            yield Path(temporary)
    else:
        chosen.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(chosen):
            yield chosen.absolute()


@contextlib.contextmanager
def _alone(folder: Path) -> Generator[None]:
    """Raises `ProcessError` where another `up` runs: two chains would write over each other's blocks."""
    with (folder / LOCK_FILE).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ProcessError(f"{folder}: another devnet runs there; stop it, or choose another --folder") from error
        yield


if __name__ == "__main__":
    sys.exit(app(prog_name="python -m parallelix.devnet.cli", standalone_mode=False))
