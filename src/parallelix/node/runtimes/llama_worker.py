"""The process that holds one model in llama.cpp: `python -m parallelix.node.runtimes.llama_worker`.

It reads one line of settings, loads the model, says so in one line, and serves llama.cpp's API on a Unix socket until
its input closes, which also happens when the node is killed. A process of its own because loading a model holds
Python's lock for seconds, in which no heartbeat would leave the node; because a failed assertion in native code ends
the process it is in; and because the node's keys need not share memory with a parser of strangers' prompts.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    # A signal to the whole group (Ctrl-C, systemd's stop) must not end work that the node is still finishing.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    answer = _private_stdout()
    settings: dict[str, Any] = json.loads(sys.stdin.readline())
    socket = Path(settings["socket"])
    try:
        server = _load(settings)
    except Exception as error:
        answer(json.dumps({"error": f"{type(error).__name__}: {error}"}))
        sys.exit(1)
    answer(json.dumps({"ready": True}))
    sys.stdin.read()
    shutil.rmtree(socket.parent, ignore_errors=True)
    # Without the destructor, which waits for generations that nobody reads any more.
    sys.stderr.flush()
    os._exit(0 if server else 1)


def _private_stdout() -> Any:
    """A way to answer the node that nothing printed by native code can get into."""
    private = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def answer(line: str) -> None:
        print(line, file=private, flush=True)

    return answer


def _load(settings: dict[str, Any]) -> Any:
    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = settings["model"]
    params.hostnames = [settings["socket"]]
    params.api_keys = [settings["api_key"]]
    params.ui = False
    params.cors_origins = ""
    params.n_parallel = settings["slots"]
    params.n_ctx = settings["slots"] * settings["context_tokens"]
    params.cpuparams.n_threads = settings["threads"]
    params.cpuparams_batch.n_threads = settings["threads"]
    # Errors only: they say why a model does not load. The node throws away what comes once it is loaded.
    params.verbosity = 1
    # By default up to 8 GiB of old prompts are kept.
    params.cache_ram_mib = 0
    params.cache_idle_slots = False
    if settings["embedding"]:
        params.embedding = True
        # A text is embedded in one piece.
        params.n_batch = params.n_ubatch = settings["context_tokens"]
    return xllamacpp.Server(params)


if __name__ == "__main__":
    main()
