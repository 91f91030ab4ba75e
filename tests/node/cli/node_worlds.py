"""The world around a node's command line: a driver library, an Ollama and a coordinator as they appear on the wire."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace
from typing import Any

from parallelix.protocol.signing import NodeKey, receipt_text

MIB = 1024 * 1024
DIGEST = "dde5aa3fc5ffc17176b5e8bdc82f587b24b2678c6c66101bf7da77af9f7ccdff"


class NvmlError(Exception):
    """As pynvml raises for a missing driver, an unknown query and the rest."""


@dataclass
class NvmlCard:
    name: str
    memory_mib: int | None
    """None: the driver does not know, as on boards that share the CPU's memory."""
    slices_mib: list[int] = field(default_factory=list[int])


@dataclass
class Nvml:
    """The functions of pynvml that a probe calls."""

    cards: list[NvmlCard]
    driver: bool = True
    NVMLError: type[Exception] = NvmlError

    def nvmlInit(self) -> None:
        if not self.driver:
            raise NvmlError("Driver Not Loaded")

    def nvmlShutdown(self) -> None: ...

    def nvmlDeviceGetCount(self) -> int:
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> NvmlCard:
        return self.cards[index]

    def nvmlDeviceGetName(self, handle: NvmlCard) -> str:
        return handle.name

    def nvmlDeviceGetMemoryInfo(self, handle: NvmlCard) -> Any:
        if handle.memory_mib is None:
            raise NvmlError("Not Supported")
        return SimpleNamespace(total=handle.memory_mib * MIB)

    def nvmlDeviceGetMigMode(self, handle: NvmlCard) -> list[int]:
        if not handle.slices_mib:
            raise NvmlError("Not Supported")
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: NvmlCard) -> int:
        return len(handle.slices_mib) + 1

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: NvmlCard, index: int) -> NvmlCard:
        if index >= len(handle.slices_mib):
            raise NvmlError("Not Found")
        return NvmlCard(f"{handle.name} MIG", handle.slices_mib[index])


H100 = NvmlCard("NVIDIA H100 80GB HBM3", 81559)

Answer = tuple[int, dict[str, Any] | list[dict[str, Any]]]
"""Status and body; a list is sent one JSON object a line."""


class Web:
    """An HTTP server on a free port of the loopback. `answer` gets method, path and body; `seen` keeps the calls."""

    def __init__(self, answer: Callable[[str, str, bytes], Answer], *, host: str = "127.0.0.1") -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        web = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self._handle()

            def do_POST(self) -> None:
                self._handle()

            def _handle(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length") or 0))
                path = self.path.partition("?")[0]
                web.seen.append((self.command, path, body))
                status, content = answer(self.command, path, body)
                lines = content if isinstance(content, list) else [content]
                data = b"\n".join(json.dumps(line).encode() for line in lines)
                self.send_response(status)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, format: str, *args: Any) -> None: ...

        self._server = ThreadingHTTPServer((host, 0), Handler)
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True)

    def __enter__(self) -> Web:
        self._thread.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def calls(self, path: str) -> list[bytes]:
        return [body for _method, seen, body in self.seen if seen == path]


PULL_STEPS: list[dict[str, Any]] = [
    {"status": "pulling manifest"},
    {"status": "pulling dde5aa3fc5ff", "digest": f"sha256:{DIGEST}", "total": 2019377376},
    {"status": "pulling dde5aa3fc5ff", "digest": f"sha256:{DIGEST}", "total": 2019377376, "completed": 1048576000},
    {"status": "pulling dde5aa3fc5ff", "digest": f"sha256:{DIGEST}", "total": 2019377376, "completed": 2019377376},
    {"status": "verifying sha256 digest"},
    {"status": "writing manifest"},
    {"status": "success"},
]


@contextmanager
def ollama(
    *models: str, version: str = "0.17.4", host: str = "127.0.0.1", pull: list[dict[str, Any]] | None = None
) -> Generator[Web]:
    """Answers as Ollama does about its version and `models`, and to a pull."""
    tags = [{"name": name, "digest": DIGEST, "size": 2019393189} for name in models]
    show = {
        "modelfile": f"# Modelfile\nFROM /usr/share/ollama/.ollama/models/blobs/sha256-{DIGEST}\n",
        "template": "{{ .Prompt }}",
        "capabilities": ["completion"],
        "model_info": {
            "general.architecture": "llama",
            "general.file_type": 15,
            "llama.context_length": 131072,
            "tokenizer.ggml.model": "gpt2",
        },
    }
    answers: dict[str, Answer] = {
        "/api/version": (200, {"version": version}),
        "/api/tags": (200, {"models": tags}),
        "/api/show": (200, show),
        "/api/pull": (200, PULL_STEPS if pull is None else pull),
    }
    with Web(lambda _method, path, _body: answers.get(path, (404, {"error": "not found"})), host=host) as web:
        yield web


@contextmanager
def coordinator(*, refuse_attach: Answer | None = None, refuse_heartbeat: Answer | None = None) -> Generator[Web]:
    """Attaches any node, hands out no work, countersigns its heartbeats; or refuses."""
    key = NodeKey.generate()
    manifests: list[dict[str, Any]] = []
    sessions: list[str] = []

    def now_ms() -> int:
        return int(time.time() * 1000)

    def attach(body: bytes) -> Answer:
        text = json.loads(body)["manifest"]
        manifests.append(json.loads(text))
        sessions.append(hashlib.sha256(text.encode()).hexdigest()[:32])
        facts = {"session": sessions[-1], "chain_id": manifests[-1]["chain_id"], "coordinator": key.address}
        times = {"heartbeat_seconds": 0.1, "poll_seconds": 0.2, "acknowledge_seconds": 10.0, "offline_seconds": 30.0}
        return 200, {**facts, "server_time": now_ms(), **times}

    def heartbeat() -> Answer:
        unix_ms, manifest = now_ms(), manifests[-1]
        text = receipt_text(manifest["chain_id"], int(manifest["node_id"]), sessions[-1], unix_ms)
        facts = {"node_id": manifest["node_id"], "session": sessions[-1], "unix_ms": unix_ms}
        proof = {"credited": True, "server_time": unix_ms, "signature": "0x" + key.sign(text).hex()}
        return 200, {**facts, "slot": unix_ms // 10_000, **proof}

    def answer(_method: str, path: str, body: bytes) -> Answer:
        match path.removeprefix("/api"):
            case "/healthz":
                return 200, {"status": "ok"}
            case "/operator/attach":
                return refuse_attach or attach(body)
            case "/operator/uptime":
                return 200, {"credited": 0, "server_time": now_ms()}
            case "/operator/heartbeat":
                return refuse_heartbeat or heartbeat()
            case "/operator/inbox":
                time.sleep(0.1)
                return 200, {"server_time": now_ms()}
            case _:
                return 404, {"error": "not_found", "message": path}

    with Web(answer) as web:
        yield web
