"""`python -m bench.canary --report reports/canary.json`: searches all that is stored, logged, sent or answered for what
must not be there.

    prompts     no database, log or wire between node and coordinator holds any part of a prompt or an answer
    nodes       no answer to a requester identifies a node: its id, keys, address, session or proof
    secrets     no byte that a node sends holds one of its private keys or a token of its environment; no API key and
                no token of a wallet's session is stored or logged

Coordinator and nodes are processes with every log switched on. All that goes between them, and between them and their
requesters, passes a relay that keeps it. The coordinator is killed, so that its write-ahead log is searched as well.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import gzip
import secrets
import shutil
import sqlite3
import sys
import tempfile
import zlib
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

from bench import loud_coordinator
from bench.canary_requests import Requester, add_key, send_all, user
from bench.echo_node import echo_node
from bench.echo_runtime import CONTEXT_TOKENS, DIGEST, MODEL
from bench.haystack import Haystack, Needle, base64_texts, patterns
from bench.relay import Relay
from parallelix.coordinator.logging import make_log
from parallelix.devnet.network import Network, Plan, Seat, catalogue_entry, real_node
from parallelix.devnet.report import Report
from parallelix.node import keys as node_keys
from parallelix.node.home import Home
from parallelix.node.keys import NodeKeys
from parallelix.protocol import canonical, poe, signing, work
from parallelix.protocol.encoding import to_hex

ECHO_NODES = 3
"""As many as a request has attempts, so that one can fail on all of them."""
GGUF = Path(__file__).resolve().parent.parent / "models" / "parallelix-demo.gguf"
DEMONSTRATION_MODEL = "parallelix-demo"
PUBLIC_LINES = 11
"""Of a private key in PEM: its heading, and the modulus, which everybody may know."""
EXCERPT_BYTES = 16 * 1024
TOKENS = (
    "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "OPENAI_API_KEY", "OLLAMA_API_KEY",
    "ANTHROPIC_API_KEY", "NPM_TOKEN", "PARALLELIX_API_KEY",
)  # fmt: skip
"""What the environment of somebody who runs models is full of."""
SETTINGS: dict[str, Any] = {
    "audits": True,
    "audit_queue_seconds": 5.0,
    "epoch_seconds": 5.0,
    "batch_seconds": 0.5,
    "heartbeat_seconds": 1.0,
    "client_grace_seconds": 0.3,
    "cancel_grace_seconds": 5.0,
    "log_steps": True,
}


@dataclass(kw_only=True)
class Sweep:
    """What one run found."""

    prompts: Haystack = field(default_factory=Haystack)
    nodes: Haystack = field(default_factory=Haystack)
    secrets: Haystack = field(default_factory=Haystack)
    outcomes: Mapping[str, int] = field(default_factory=dict[str, int])
    surfaces: dict[str, bytes] = field(default_factory=dict[str, bytes])
    """An excerpt of each kind of thing that was searched, for the controls to hide something in."""

    @property
    def haystacks(self) -> tuple[Haystack, Haystack, Haystack]:
        return self.prompts, self.nodes, self.secrets

    @property
    def clean(self) -> bool:
        return not any(haystack.hits for haystack in self.haystacks)


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.canary", description="search for what must not be there")
    parser.add_argument("--report", type=Path, default=Path("reports/canary.json"))
    options = parser.parse_args(arguments)
    report = Report("canary", " ".join(("python -m bench.canary", *arguments)))
    with tempfile.TemporaryDirectory(prefix="parallelix-canary-") as folder:
        found = asyncio.run(sweep(Path(folder) / "sound", real_model=True))
        planted = planted_controls(found, Path(folder) / "planted")
        leaks = asyncio.run(leaky_controls(Path(folder) / "leaky"))
    controls = {**planted, **leaks}
    for name, caught in controls.items():
        report.control(name, caught)
    results = results_of(found, controls)
    code = report.write(options.report, results, found.clean)
    print_summary(found, results, controls)
    return code


# The run ------------------------------------------------------------------------------------------------------------


async def sweep(folder: Path, *, real_model: bool) -> Sweep:
    """Sends every case through a network and searches what is left. `real_model` adds a node as operators run it."""
    found = Sweep()
    async with stage(folder, found, real_model=real_model) as scene:
        await send_all(scene.requester)
        if real_model:
            body = {"model": DEMONSTRATION_MODEL, "messages": [user(scene.requester.text("real model"))]}
            await scene.requester.call("POST", "/v1/chat/completions", expect=200, body={**body, "max_tokens": 16})
        found.outcomes = dict(scene.requester.outcomes)
        # Later, since the relays need this thread: while it runs, after kill -9, and after an orderly end.
        keep_files(scene.network, "running")
        scene.network.kill_coordinator()
        keep_files(scene.network, "killed")
        await scene.network.start_coordinator()
        await scene.network.stop()
        search_all(scene, found)
    return found


@dataclass(kw_only=True)
class Scene:
    network: Network
    requester: Requester
    requesters_line: Relay
    node_lines: list[Relay]


@asynccontextmanager
async def stage(
    folder: Path,
    found: Sweep,
    *,
    echo_nodes: int = ECHO_NODES,
    real_model: bool = False,
    coordinator: str = "bench.loud_coordinator",
    node_options: Sequence[str] = (),
) -> AsyncGenerator[Scene]:
    await asyncio.to_thread(folder.mkdir, parents=True)
    entries = [catalogue_entry(MODEL, DIGEST, context_tokens=CONTEXT_TOKENS)]
    if real_model:
        digest = sha256(GGUF.read_bytes()).hexdigest()
        entries.append(catalogue_entry(DEMONSTRATION_MODEL, digest, context_tokens=1024, max_tokens_max=64))
    echoing = echo_node(pause_seconds=0.01, options=node_options)
    tokens = {name: f"token-{secrets.token_urlsafe(24)}" for name in TOKENS}
    lines: dict[int, Relay] = {}

    def node(seat: Seat) -> list[str]:
        behind_line = replace(seat, coordinator_url=f"{lines[seat.number].url}/api")
        command = real_node(GGUF) if seat.number > echo_nodes else echoing
        return in_operators_surroundings(seat, tokens, command(behind_line))

    plan = Plan(
        folder=folder,
        catalogue="\n".join(entries),
        node_command=node,
        node_count=echo_nodes + real_model,
        settings=SETTINGS,
        coordinator_command=loud_coordinator.command(coordinator),
    )
    network = Network(plan)
    # Ids that cannot be met by chance.
    for number, seat in network.seats.items():
        network.seats[number] = replace(seat, node_id=secrets.randbits(255) | 1 << 254)
    async with AsyncExitStack() as stack:
        stack.push_async_callback(network.stop)
        await asyncio.to_thread(network.prepare)
        for number in network.seats:
            lines[number] = await stack.enter_async_context(Relay(network.port).running())
        front = await stack.enter_async_context(Relay(network.port).running())
        wallet = signing.NodeKey.generate()
        rich = network.new_key(account=wallet.address)
        poor = network.new_key(account="poor", name="poor", credits_wei=0)
        requester = Requester(front.url, rich, poor, wallet, found.prompts, found.secrets)
        stack.push_async_callback(requester.aclose)
        add_identities(network, found.nodes)
        add_secrets(network, tokens, (rich, poor), found.secrets)
        await network.start_coordinator()
        for number in network.seats:
            network.start_node(number)
        await network.online(plan.node_count)
        yield Scene(network=network, requester=requester, requesters_line=front, node_lines=list(lines.values()))


def in_operators_surroundings(seat: Seat, tokens: Mapping[str, str], command: Sequence[str]) -> list[str]:
    """An operator's surroundings: tokens in the environment and in the files where programs look for them."""
    home = seat.home.parent / f"operator{seat.number}"
    home.mkdir(mode=0o700, exist_ok=True)
    lay_out_tokens(home, tokens)
    settings = {**loud_coordinator.ENVIRONMENT, **tokens, "HOME": str(home), "NETRC": str(home / ".netrc")}
    return ["env", *(f"{name}={value}" for name, value in settings.items()), *command]


def lay_out_tokens(home: Path, tokens: Mapping[str, str]) -> None:
    for name, text in (
        (".netrc", f"machine 127.0.0.1 login operator password {tokens['GITHUB_TOKEN']}\n"),
        (".cache/huggingface/token", tokens["HF_TOKEN"]),
        (".aws/credentials", f"[default]\naws_secret_access_key = {tokens['AWS_SECRET_ACCESS_KEY']}\n"),
    ):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(0o600)


# What to look for ---------------------------------------------------------------------------------------------------


def keys_of(network: Network) -> dict[int, NodeKeys]:
    return {number: node_keys.load_keys(Home(seat.home)) for number, seat in network.seats.items()}


def add_identities(network: Network, haystack: Haystack) -> None:
    for number, keys in keys_of(network).items():
        seat = network.seats[number]
        key_hash = signing.public_key_hash(keys.node.public_key)
        node_id = seat.node_id.to_bytes(32, "big")
        haystack.add(f"node {number}: id", node_id, number=True)
        haystack.add(f"node {number}: id", str(seat.node_id))
        for name, data in (
            ("key hash", key_hash),
            ("address", key_hash[12:]),
            ("public key", keys.node.public_key),
            ("envelope key", modulus_of(keys.envelope.raw_value)),
            ("proof key", modulus_of(keys.poe)),
        ):
            haystack.add(f"node {number}: {name}", data)
            haystack.add(f"node {number}: {name} in hex", data.hex())
        for name, pem in (("envelope key", keys.envelope_public_pem), ("proof key", keys.poe_public_pem)):
            haystack.add(f"node {number}: {name}'s short name", sha256(pem.encode()).hexdigest()[:16])
            for line in pem.splitlines()[2:-2]:
                haystack.add(f"node {number}: {name} in PEM", line)


def add_proofs(network: Network, requester: Requester, haystack: Haystack) -> None:
    """The proof of every answer, had each of the nodes given it: with it, ids could be guessed one by one."""
    for request_id, result in requester.completed:
        content = work.ResultContent(
            text=result["text"],
            tool_calls=tuple(work.ToolCall(**call) for call in result["tool_calls"]),
            embeddings=tuple(work.pack_vector(vector) for vector in result["embeddings"]),
            finish_reason=result["finish_reason"],
        )
        for number, seat in network.seats.items():
            proof = poe.proof_of_execution(request_id, canonical.encode(content), seat.node_id)
            haystack.add(f"node {number}: proof", proof)
            haystack.add(f"node {number}: proof in hex", to_hex(proof))


def add_secrets(network: Network, tokens: Mapping[str, str], api_keys: Sequence[str], haystack: Haystack) -> None:
    for number, keys in keys_of(network).items():
        home = Home(network.seats[number].home)
        haystack.add(f"node {number}: node key", keys.node.secret)
        haystack.add(f"node {number}: node key in hex", keys.node.secret.hex())
        for name, key, path in (
            ("envelope key", keys.envelope.raw_value, home.envelope_key),
            ("proof key", keys.poe, home.poe_key),
        ):
            for part, value in private_parts(key):
                haystack.add(f"node {number}: {name}, {part}", value, number=True)
            for line in path.read_text().splitlines()[PUBLIC_LINES:-1]:
                haystack.add(f"node {number}: {name} in PEM", line)
    for name, token in tokens.items():
        haystack.add(f"environment: {name}", token)
    for api_key in api_keys:
        add_key("a requester's API key", api_key, haystack)


def modulus_of(key: Any) -> bytes:
    public = key.public_key() if isinstance(key, RSAPrivateKey) else key
    return public.public_numbers().n.to_bytes(public.key_size // 8, "big")


def private_parts(key: Any) -> list[tuple[str, bytes]]:
    assert isinstance(key, RSAPrivateKey)
    numbers = key.private_numbers()
    parts = {"d": numbers.d, "p": numbers.p, "q": numbers.q, "dp": numbers.dmp1, "dq": numbers.dmq1, "qi": numbers.iqmp}
    return [(name, value.to_bytes((value.bit_length() + 7) // 8, "big")) for name, value in parts.items()]


# Where to look ------------------------------------------------------------------------------------------------------


def keep_files(network: Network, moment: str) -> None:
    """A copy of the store with its log as it is now."""
    shutil.copytree(network.coordinator_folder, network.plan.folder / f"coordinator-{moment}")


def search_all(scene: Scene, found: Sweep) -> None:
    search_files(scene.network, found)
    search_wires(scene, found)


def search_files(network: Network, found: Sweep) -> None:
    """Every file of coordinator and nodes; in the nodes' own, keys are at home."""
    folder = network.plan.folder
    found.prompts.search_folder(folder)
    for path in folder.glob("coordinator*"):
        (found.secrets.search_folder if path.is_dir() else found.secrets.search_file)(path)
    for path in sorted(folder.rglob("*")):
        kind = kind_of(path.relative_to(folder))
        if kind and path.is_file() and kind not in found.surfaces:
            found.surfaces[kind] = path.read_bytes()[:EXCERPT_BYTES]


def kind_of(path: Path) -> str:
    kinds = {
        "coordinator.db": "database", "coordinator.db-wal": "write-ahead log", "node.log": "node's log",
        "state.json": "node's state", "receipts.jsonl": "node's receipts", "coordinator.out": "coordinator's log",
        "node1.out": "node's output",
    }  # fmt: skip
    return kinds.get(path.name, "")


def search_wires(scene: Scene, found: Sweep) -> None:
    add_proofs(scene.network, scene.requester, found.nodes)
    for number, line in enumerate(scene.node_lines, start=1):
        found.prompts.search(f"sent by node {number}", line.up)
        found.prompts.search(f"sent to node {number}", line.down)
        found.secrets.search(f"sent by node {number}", line.up)
    found.nodes.search("answers to requesters", scene.requesters_line.down)
    found.surfaces["sent by a node"] = scene.node_lines[0].up[:EXCERPT_BYTES]
    found.surfaces["sent to a node"] = scene.node_lines[0].down[:EXCERPT_BYTES]
    found.surfaces["answers to requesters"] = scene.requesters_line.down[:EXCERPT_BYTES]


# Controls -----------------------------------------------------------------------------------------------------------

ENCODINGS: dict[str, Callable[[bytes], bytes]] = {
    "plain": lambda data: data,
    "capitals": bytes.upper,
    "cut short": lambda data: data[5:18],
    "hex": lambda data: data.hex().upper().encode(),
    "base64": lambda data: base64.b64encode(b"a" + data + b"bc"),
    "URL-safe base64": lambda data: base64.urlsafe_b64encode(b"ab\xff" + data + b"\xfe"),
    "UTF-16": lambda data: data.decode().encode("utf-16"),
    "escaped": lambda data: "".join(f"\\u{each:04x}" for each in data).encode(),
    "percent": lambda data: "".join(f"%{each:02X}" for each in data).encode(),
    "digest": lambda data: sha256(data).hexdigest().encode(),
    "zlib": lambda data: zlib.compress(b"before " + data + b" after"),
    "gzip": lambda data: gzip.compress(b"before " + base64.b64encode(data) + b" after"),
}


def planted_controls(found: Sweep, folder: Path) -> dict[str, bool]:
    """A canary hidden in every kind of place, in every encoding, and in a real store and log by real writes."""
    canary = "canary0planted1for2control"
    haystack = Haystack([Needle("planted", canary.encode())])
    controls: dict[str, bool] = {}
    for surface, content in found.surfaces.items():
        middle = len(content) // 2
        for name, encode in ENCODINGS.items():
            hidden = content[:middle] + encode(canary.encode()) + content[middle:]
            controls[f"{name} in {surface}"] = bool(haystack.search(surface, hidden))
        controls[f"nothing in {surface}"] = not haystack.search(surface, content)
    folder.mkdir(parents=True)
    write_store(folder / "store.db", canary)
    for name in ("store.db", "store.db-wal"):
        copy = shutil.copy(folder / name, folder / f"copy-{name}")
        controls[f"a row in a {'log of a store' if name.endswith('wal') else 'store'}"] = bool(
            haystack.search_file(Path(copy))
        )
    with (folder / "log").open("w") as log:
        make_log(log)("control", {"quoted": f"the prompt was {canary}"})
    controls["a line in a log"] = bool(haystack.search_folder(folder))
    for kind, needle in (("identity", found.nodes.needles), ("secret", found.secrets.needles)):
        controls[f"every {kind} in every form"] = all(findable(each) for each in needle)
    return controls


def write_store(path: Path, canary: str) -> None:
    """One row in the file itself, one that is only in its write-ahead log, which is kept by a copy."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA journal_mode = wal")
        connection.execute("CREATE TABLE notes (text TEXT)")
        connection.execute("INSERT INTO notes VALUES (?)", (f"a row with {canary} in it",))
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.execute("INSERT INTO notes VALUES (?)", (canary,))
        kept = path.with_name(f"{path.name}-wal").read_bytes()
    path.with_name(f"{path.name}-wal").write_bytes(kept)


def findable(needle: Needle) -> bool:
    """Whether each of its forms is found where it stands alone."""
    haystack = Haystack([needle])
    texts = [*(pattern for _, pattern in patterns(needle)), *base64_texts(needle.data)]
    return all(haystack.search("control", b"before " + text + b" after") for text in texts)


async def leaky_controls(folder: Path) -> dict[str, bool]:
    """A whole network with faults: its coordinator logs prompts and names nodes, its nodes send keys and tokens."""
    found = Sweep()
    leaky = stage(folder, found, echo_nodes=1, coordinator="bench.leaky_coordinator", node_options=("--leaks",))
    async with leaky as scene:
        await scene.requester.native("completed", messages=[user(scene.requester.text("leaked"))])
        await scene.requester.call("GET", "/metrics", expect=200)
        search_all(scene, found)
    leaked = {hit.needle for hit in found.secrets.hits}
    return {
        "a coordinator that logs prompts": bool(found.prompts.hits),
        "a coordinator that names its nodes": bool(found.nodes.hits),
        "a node that sends a token": "environment: HF_TOKEN" in leaked,
        "a node that sends its key": any(needle.endswith(": node key") for needle in leaked),
    }


# Report -------------------------------------------------------------------------------------------------------------


def results_of(found: Sweep, controls: Mapping[str, bool]) -> dict[str, Any]:
    return {
        "bytes_scanned": sum(haystack.bytes_scanned for haystack in found.haystacks),
        "prompt_hits": len(found.prompts.hits),
        "node_identity_hits": len(found.nodes.hits),
        "secret_hits": len(found.secrets.hits),
        "control_hits": sum(controls.values()),
        "canaries": len(found.prompts.needles),
        "identities": len(found.nodes.needles),
        "secrets": len(found.secrets.needles),
        "outcomes": found.outcomes,
        "places": sorted(found.surfaces),
    }


def print_summary(found: Sweep, results: Mapping[str, Any], controls: Mapping[str, bool]) -> None:
    for name, value in results.items():
        print(f"{name:20} {value}")
    for haystack in found.haystacks:
        for hit in haystack.hits[:20]:
            print(f"FOUND {hit.needle} ({hit.form}) in {hit.where}")
    missed = [name for name, caught in controls.items() if not caught]
    print(f"{len(controls)} controls, {len(missed)} missed{': ' if missed else ''}{'; '.join(missed)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
