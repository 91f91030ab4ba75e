"""`parallelix devnet up`: a coordinator and nodes on this machine, until Ctrl-C.

Also `python -m parallelix.devnet.cli up`, where the `parallelix` command is not installed.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import httpx
import msgspec
import typer

from parallelix.devnet.model import MODEL, ModelFileMissing, demonstration_catalogue, demonstration_model
from parallelix.devnet.network import Network, Plan, free_port, is_free, real_node
from parallelix.devnet.processes import ProcessError
from parallelix.terminal import Console

if TYPE_CHECKING:
    from parallelix.devnet.processes import Child

PROGRAM = "parallelix devnet"
PORT = 8400
NODES = 3
NODES_MAX = 32
"""Each is three processes' worth of memory, near 250 MiB, on one machine."""
SLOTS = 4
SETTINGS = {"batch_seconds": 5.0, "heartbeat_seconds": 2.0, "offline_seconds": 10.0}
"""Quicker than a public network, so that whoever kills a node sees what comes of it."""
API_KEY_FILE = "api-key"
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


class UpAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What --json prints once everything runs. `url` also serves the OpenAI shapes, below /v1."""

    url: str
    api_key: str
    model: str
    folder: str
    coordinator_pid: int
    nodes: tuple[NodeAnswer, ...]


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
    json: Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")] = False,
) -> int:
    """Run a coordinator and nodes as processes of their own, until Ctrl-C; print what to try."""
    console = Console.standard(json=json)
    try:
        if port is not None and not is_free(port):
            raise ProcessError(f"--port {port}: something listens there already; stop it, or choose another port")
        with _folder(folder) as chosen:
            return asyncio.run(_up(console, chosen, port or (PORT if is_free(PORT) else free_port()), nodes))
    except (ProcessError, ModelFileMissing, OSError) as error:
        console.clear_live()
        console.error("devnet.failed", str(error))
        return EXIT_FAILED


async def _up(console: Console, folder: Path, port: int, nodes: int) -> int:
    plan = Plan(
        folder=folder,
        catalogue=demonstration_catalogue(),
        node_command=real_node(demonstration_model(), slots=SLOTS),
        node_count=nodes,
        settings=SETTINGS,
        port=port,
    )
    network = Network(plan)
    _cancel_on_signals()
    console.heading(f"ParalleliX devnet: a coordinator and {_count(nodes)} on this machine")
    try:
        await _start(console, network)
        api_key = await asyncio.to_thread(_api_key, network)
        await network.accepts(api_key)
        _tell(console, network, api_key)
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
    console.live("starting the coordinator")
    await network.start_coordinator()
    for number in network.seats:
        network.start_node(number)
    console.live("waiting for the nodes")
    await network.online(len(network.seats))
    console.clear_live()


def _api_key(network: Network) -> str:
    """The one that the folder has, else a new one with credits."""
    path = network.plan.folder / API_KEY_FILE
    with contextlib.suppress(FileNotFoundError):
        return path.read_text().strip()
    secret = network.new_key()
    path.touch(mode=0o600)
    path.write_text(f"{secret}\n")
    return secret


def _tell(console: Console, network: Network, api_key: str) -> None:
    coordinator = network.coordinator
    assert coordinator is not None
    console.done(f"coordinator {network.url} · pid {coordinator.pid}")
    for number, seat in network.seats.items():
        console.done(f"node {number} online · id {seat.node_id} · pid {network.nodes[number].pid}")
    console.fact("model", f"{MODEL}, very small: a demonstration", label_columns=LABEL_COLUMNS)
    console.fact("API page", f"{network.url}/schema", label_columns=LABEL_COLUMNS)
    console.fact("files", str(network.plan.folder), label_columns=LABEL_COLUMNS)
    console.plain("")
    for line in what_to_try(network.url, api_key):
        console.plain(line)
    console.plain("")
    console.value(
        UpAnswer(
            url=network.url,
            api_key=api_key,
            model=MODEL,
            folder=str(network.plan.folder),
            coordinator_pid=coordinator.pid,
            nodes=tuple(
                NodeAnswer(number=number, node_id=str(seat.node_id), pid=network.nodes[number].pid, home=str(seat.home))
                for number, seat in network.seats.items()
            ),
        )
    )


def what_to_try(url: str, api_key: str) -> list[str]:
    """Lines to copy into another terminal, none longer than 80 columns."""
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
        yield chosen.absolute()


if __name__ == "__main__":
    sys.exit(app(prog_name="python -m parallelix.devnet.cli", standalone_mode=False))
