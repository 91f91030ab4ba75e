"""`parallelix-node`: nine subcommands, each with --json.

Commands import what they need when they run, so that `version` and a shell's completion stay quick. Exit codes are in
errors.py.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from parallelix.node.console import Console
from parallelix.node.errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_USAGE, NodeError

if TYPE_CHECKING:
    from parallelix.node.starting import Options

PROGRAM = "parallelix-node"
LOG_LINES = 20

COMMANDS = ("probe", "init", "models", "start", "service", "verify", "status", "logs", "version")


class InOrderOfUse(TyperGroup):
    """Help lists the commands as an operator meets them."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)


app = typer.Typer(
    name=PROGRAM,
    cls=InOrderOfUse,
    help="Runs a ParalleliX node: attaches this machine to a staked node id, keeps it online, serves inference.",
    epilog="Staking, claiming and unstaking are wallet actions in the Console; this program never sees a wallet's key.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)
models_app = typer.Typer(rich_markup_mode=None)
app.add_typer(models_app, name="models")

Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of text.")]
NodeId = Annotated[str | None, typer.Option("--node-id", metavar="ID", help="The id that registerNode gave.")]
Gpu = Annotated[bool, typer.Option("--gpu", help="Serve with the GPU (the default where there is one).")]
Cpu = Annotated[bool, typer.Option("--cpu", help="Serve with the CPU, as tier 1.")]
ModelNames = Annotated[
    list[str] | None, typer.Option("--model", metavar="NAME", help="Serve this model only. May be repeated.")
]
RuntimeName = Annotated[str | None, typer.Option("--runtime", metavar="NAME", help="ollama or llama_cpp.")]
GgufPaths = Annotated[
    list[Path] | None, typer.Option("--gguf", metavar="PATH", help="A model file for llama_cpp. May be repeated.")
]
Slots = Annotated[int | None, typer.Option("--slots", metavar="N", help="Requests served at once.")]
CoordinatorUrl = Annotated[str | None, typer.Option("--coordinator", metavar="URL", help="The coordinator's base URL.")]
Tier = Annotated[int | None, typer.Option("--tier", metavar="TIER", help="The tier that was registered, 1 to 4.")]


@app.command()
def probe(json: Json = False) -> None:
    """Detect local hardware and Ollama; print the tier it maps to."""
    from parallelix.node.commands import probe

    probe(Console.standard(json=json))


@app.command(short_help="Generate the node key and config; print the nodeKeyHash.")
def init(
    wallet: Annotated[
        str, typer.Option("--wallet", metavar="ADDRESS", help="The staking wallet's address (never its key).")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace the node key; the old node is orphaned.")] = False,
    json: Json = False,
) -> None:
    """Generate the node key (a separate, low-value key) and the config; print the nodeKeyHash."""
    from parallelix.node.commands import init

    init(Console.standard(json=json), wallet=wallet, force=force)


@models_app.callback(invoke_without_command=True, short_help="List local models; `models pull [NAME]` installs one.")
def models(context: typer.Context, json: Json = False) -> None:
    """List the models that are installed locally, or pull one: models pull [NAME]."""
    context.obj = json
    if context.invoked_subcommand is None:
        from parallelix.node.commands import models

        models(Console.standard(json=json))


@models_app.command()
def pull(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="The model to pull.")] = "llama3.2",
    json: Json = False,
) -> None:
    """Install a model in Ollama (llama3.2 unless another is named)."""
    from parallelix.node.commands import pull

    pull(Console.standard(json=json or bool(context.obj)), name)


@models_app.command(short_help="Measure how far honest answers of a model differ; write its card.")
def calibrate(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The installed model to measure.")],
    prompts: Annotated[
        int | None, typer.Option("--prompts", metavar="N", help="Answers to measure, 4 to 240 (48 by default).")
    ] = None,
    json: Json = False,
) -> None:
    """Measure how far honest answers of a model are apart on this machine, and write its calibration card."""
    from parallelix.node.commands import calibrate

    calibrate(Console.standard(json=json or bool(context.obj)), name, prompts)


@app.command(short_help="Run the daemon: attach, heartbeat, serve inference, prove.")
def start(
    node_id: NodeId = None,
    gpu: Gpu = False,
    cpu: Cpu = False,
    model: ModelNames = None,
    runtime: RuntimeName = None,
    gguf: GgufPaths = None,
    slots: Slots = None,
    coordinator: CoordinatorUrl = None,
    tier: Tier = None,
    foreground: Annotated[bool, typer.Option("--foreground", help="Print the log as well, line by line.")] = False,
    json: Json = False,
) -> int:
    """Run the daemon: attach, send heartbeats, serve inference, return proofs. Ctrl-C drains, then stops."""
    from parallelix.node.starting import start

    options = _options(node_id, gpu, cpu, model, runtime, gguf, slots, coordinator, tier)
    return start(Console.standard(json=json), options, foreground=foreground)


@app.command(short_help="Install the daemon as a service (systemd/launchd).")
def service(
    node_id: NodeId = None,
    gpu: Gpu = False,
    cpu: Cpu = False,
    model: ModelNames = None,
    runtime: RuntimeName = None,
    gguf: GgufPaths = None,
    slots: Slots = None,
    coordinator: CoordinatorUrl = None,
    tier: Tier = None,
    system: Annotated[
        bool, typer.Option("--system", help="For the whole machine (needs root), not this user.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what would be installed, change nothing.")] = False,
    json: Json = False,
) -> None:
    """Install `start` with these options as a background service: 24/7, survives reboot, auto-restarts."""
    from parallelix.node.commands import service

    options = _options(node_id, gpu, cpu, model, runtime, gguf, slots, coordinator, tier)
    service(Console.standard(json=json), options, scope="system" if system else "user", dry_run=dry_run)


@app.command(short_help="Run diagnostics: keys, Ollama, model, coordinator, clock.")
def verify(json: Json = False) -> int:
    """Run diagnostics: versions, key permissions, runtime and model, coordinator, clock."""
    from parallelix.node.commands import verify

    return verify(Console.standard(json=json))


@app.command(short_help="Print local node state: address, nodeKeyHash, tier.")
def status(json: Json = False) -> None:
    """Print the local node's state: address, nodeKeyHash, tier, contracts, daemon."""
    from parallelix.node.commands import status

    status(Console.standard(json=json))


@app.command()
def logs(
    lines: Annotated[int, typer.Option("-n", "--lines", metavar="N", help="How many lines to begin with.")] = LOG_LINES,
    follow: Annotated[bool, typer.Option("-f", "--follow", help="Go on printing lines as they come.")] = False,
    json: Json = False,
) -> None:
    """Tail the node log (~/.parallelix/node.log)."""
    from parallelix.node.commands import logs

    logs(Console.standard(json=json), count=lines, follow=follow)


@app.command()
def version(json: Json = False) -> None:
    """Print the CLI version."""
    from parallelix.node.answers import VersionAnswer
    from parallelix.node.console import client_version

    console = Console.standard(json=json)
    console.plain(f"{PROGRAM} {client_version()}")
    console.value(VersionAnswer(version=client_version()))


def main() -> None:
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """One command; its exit code. Every refusal is one line on standard error, with --json one object."""
    console = Console.standard(json="--json" in arguments)
    try:
        _refuse_secrets(arguments)
        code = app(list(arguments), prog_name=PROGRAM, standalone_mode=False)
    except NodeError as error:
        console.error(error.code, error.message)
        return error.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # `logs | head` ends like this; Python would complain once more when it closes standard output.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing in ("", "parallelix"):
            return _failed(console, error)
        console.error(
            "node.failed", f"this command needs {missing}, which is not installed; run: pip install 'parallelix[node]'"
        )
        return EXIT_FAILED
    except Exception as error:
        return _failed(console, error)
    return code if isinstance(code, int) else 0


def _options(
    node_id: str | None,
    gpu: bool,
    cpu: bool,
    model: list[str] | None,
    runtime: str | None,
    gguf: list[Path] | None,
    slots: int | None,
    coordinator: str | None,
    tier: int | None,
) -> Options:
    from parallelix.node.starting import Options

    return Options(
        node_id=node_id,
        gpu=gpu,
        cpu=cpu,
        models=tuple(model or ()),
        runtime=runtime,
        gguf=tuple(str(path.absolute()) for path in gguf or ()),
        slots=slots,
        coordinator=coordinator,
        tier=tier,
    )


def _refuse_secrets(arguments: Sequence[str]) -> None:
    """Before anything looks at the arguments, because a parser's complaint would repeat them."""
    if any(len(argument) >= 64 for argument in arguments):
        from parallelix.node.config import refuse_secret

        for argument in arguments:
            refuse_secret(argument)


def _failed(console: Console, error: Exception) -> int:
    describe: Any = getattr(error, "format_message", None)
    if describe is None:
        if os.environ.get("PARALLELIX_DEBUG"):
            raise error
        console.error(
            "node.failed",
            f"{type(error).__name__}: {str(error)[:300]}; if this should not be, report it with PARALLELIX_DEBUG=1",
        )
        return EXIT_FAILED
    if type(error).__name__ == "NoArgsIsHelpError":
        typer.echo(describe())
        return EXIT_USAGE
    message = " ".join(str(describe()).split())
    if not message:
        return 0 if getattr(error, "exit_code", 0) == 0 else EXIT_USAGE
    if message.startswith("Got unexpected extra argument"):
        # The words may be a seed phrase that somebody pasted.
        message = "unexpected extra arguments"
    console.error("node.usage", f"{message[:1].lower()}{message[1:].rstrip('.?')}; see {PROGRAM} --help")
    return EXIT_USAGE
