from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from parallelix.devnet.cli import UpAnswer, app, what_to_try

UP = [sys.executable, "-m", "parallelix.devnet.cli", "up"]


def test_what_to_try_fits_80_columns_and_can_be_copied() -> None:
    lines = what_to_try("http://127.0.0.1:65535", "prlx_" + "x" * 43)

    assert all(len(line) <= 80 for line in lines if sys.executable not in line and "/bin/parallelix" not in line)
    text = "\n".join(lines)
    assert "export PARALLELIX_API_KEY=prlx_xxx" in text and "/v1/chat/completions" in text and "OpenAI()" in text
    body = text.partition("-d '")[2].partition("'")[0]
    assert json.loads(body)["messages"][0]["role"] == "user"


@pytest.mark.parametrize("on_path", [True, False])
def test_what_to_ask_stands_on_one_line_where_it_fits(monkeypatch: pytest.MonkeyPatch, on_path: bool) -> None:
    found = "/usr/bin/parallelix" if on_path else None

    def which(_: str) -> str | None:
        return found

    monkeypatch.setattr("shutil.which", which)
    monkeypatch.setattr("sys.executable", f"/opt/{'x' * 40}/bin/python")

    lines = what_to_try("http://127.0.0.1:65535", "prlx_x")

    asked = next(number for number, line in enumerate(lines) if 'ask "' in line)
    assert lines[asked].startswith("parallelix ask " if on_path else "  ask ")
    assert on_path or lines[asked - 1] == f"/opt/{'x' * 40}/bin/parallelix \\"


def test_a_port_that_is_taken_is_refused_with_the_way_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        code = app(["up", "--port", str(port), "--folder", str(tmp_path / "new")], standalone_mode=False)

    printed = capsys.readouterr()
    assert code == 1 and printed.out == "" and not (tmp_path / "new").exists()
    assert f"--port {port}" in printed.err and "choose another port" in " ".join(printed.err.split())


@pytest.mark.slow
def test_a_network_comes_up_answers_survives_its_coordinator_and_leaves_no_process_behind(tmp_path: Path) -> None:
    up = subprocess.Popen([*UP, "--json", "--nodes", "2", "--folder", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert up.stdout is not None
        answer = json.loads(up.stdout.readline())
        assert set(answer) == set(UpAnswer.__struct_fields__) and len(answer["nodes"]) == 2
        started = {answer["coordinator_pid"], *(node["pid"] for node in answer["nodes"])}
        assert started <= {process.pid for process in psutil.Process(up.pid).children()}
        assert ask(answer)["usage"]["completion_tokens"] > 0
        os.kill(answer["coordinator_pid"], signal.SIGKILL)
        assert ask(answer)["choices"][0]["message"]["content"]
        processes = psutil.Process(up.pid).children(recursive=True)
        up.send_signal(signal.SIGINT)
        assert up.wait(60) == 0
    finally:
        up.kill()
        up.communicate()
    assert psutil.wait_procs(processes, timeout=10)[1] == []
    assert (tmp_path / "api-key").read_text().strip() == answer["api_key"]
    assert oct((tmp_path / "api-key").stat().st_mode & 0o777) == "0o600"


def ask(answer: dict[str, Any]) -> dict[str, Any]:
    """Again while the coordinator is away, as a client does."""
    ends_at = time.monotonic() + 60
    while True:
        try:
            reply = httpx.post(
                f"{answer['url']}/v1/chat/completions",
                headers={"Authorization": f"Bearer {answer['api_key']}"},
                json={"model": answer["model"], "messages": [{"role": "user", "content": "Hello!"}], "max_tokens": 20},
                timeout=60,
                trust_env=False,
            )
            return reply.raise_for_status().json()
        except httpx.TransportError:
            assert time.monotonic() < ends_at
            time.sleep(0.05)
