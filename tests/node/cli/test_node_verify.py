from __future__ import annotations

import shutil
from email.utils import formatdate
from pathlib import Path

import httpx
import node_worlds
import pytest
from node_scene import Operate

from parallelix.node import verify
from parallelix.node.home import Home

NOW = 1_795_246_707.0
LOOSE = 0o640


@pytest.fixture
def made(home: Home, made_keys: Home) -> Home:
    shutil.copytree(made_keys.root, home.root)
    return home


def configure(home: Home, *lines: str) -> None:
    home.config.write_text("\n".join(lines))


async def checked_coordinator(answer: httpx.Response | Exception) -> list[verify.Check]:
    def respond(request: httpx.Request) -> httpx.Response:
        assert str(request.url) == "https://parallelix.io/api/healthz"
        if isinstance(answer, Exception):
            raise answer
        return answer

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as client:
        return await verify.check_coordinator("https://parallelix.io/api", client, now=lambda: NOW)


@pytest.mark.parametrize(
    ("ahead_seconds", "passed", "message"),
    [
        (0.4, True, "+0 s from the coordinator's"),
        (12.4, True, "-12 s from the coordinator's"),
        (31.4, False, "-31 s from the coordinator's, at most 30 s; switch time synchronisation on"),
        (-600, False, "+600 s from the coordinator's, at most 30 s; switch time synchronisation on"),
    ],
)
async def test_the_clock_is_compared_with_the_coordinators(ahead_seconds: float, passed: bool, message: str) -> None:
    date = formatdate(NOW + ahead_seconds, usegmt=True)
    reach, clock = await checked_coordinator(httpx.Response(200, headers={"date": date}))
    assert reach.passed
    assert (clock.name, clock.passed, clock.message) == ("clock", passed, message)


async def test_a_coordinator_without_a_date_says_nothing_of_the_clock() -> None:
    assert [check.name for check in await checked_coordinator(httpx.Response(200))] == ["coordinator"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (httpx.ConnectError("connection refused"), "connection refused; check the network"),
        (httpx.ReadTimeout(""), "ReadTimeout; check the network"),
        (httpx.Response(404), "answered 404, expected 200"),
        (httpx.Response(302, headers={"location": "https://elsewhere"}), "answered 302, expected 200"),
    ],
)
async def test_a_coordinator_that_is_not_there_is_told_with_the_way_out(
    answer: httpx.Response | Exception, said: str
) -> None:
    (check,) = await checked_coordinator(answer)
    assert not check.passed and said in check.message


def test_ollama_on_every_address_is_found_by_asking_them() -> None:
    with node_worlds.ollama("llama3.2:latest", host="0.0.0.0") as web:
        # 127.0.0.2 stands in for an address of the network: the loopback has 16 million of them.
        exposed = verify.check_exposure(web.url, ["127.0.0.2"])
    assert not exposed.passed
    assert f"port {web.port} answers on 127.0.0.2" in exposed.message
    assert f"OLLAMA_HOST=127.0.0.1:{web.port}" in exposed.message


def test_ollama_on_the_loopback_alone_is_fine() -> None:
    with node_worlds.ollama("llama3.2:latest") as web:
        assert verify.check_exposure(web.url, ["127.0.0.2"]).passed
        assert verify.check_exposure(web.url).passed


def test_an_ollama_elsewhere_is_not_on_the_loopback() -> None:
    check = verify.check_exposure("http://192.0.2.7:11434", [])
    assert not check.passed and "not on the loopback" in check.message


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ("llama3.2", True),
        ("llama3.2:latest", True),
        ("qwen3:8b", True),
        ("qwen3", False),
        ("llama3", False),
        ("", False),
    ],
)
def test_names_match_with_ollamas_default_tag(wanted: str, found: bool) -> None:
    assert verify.is_installed(wanted, ["llama3.2:latest", "qwen3:8b"]) is found


@pytest.mark.parametrize(
    ("version", "passed", "said"),
    [
        ("0.17.4", True, "running · 0.17.4"),
        ("0.12.10", False, "returns no log-probabilities"),
        ("0.12.11", False, "CVE-2026-7482"),
        ("0.0.0", False, "returns no log-probabilities"),
    ],
)
def test_the_version_of_ollama_has_a_floor(made: Home, operate: Operate, version: str, passed: bool, said: str) -> None:
    with node_worlds.ollama("llama3.2:latest", version=version) as web, node_worlds.coordinator() as coordinator:
        configure(made, f'ollama_url = "{web.url}"', f'coordinator = "{coordinator.url}/api"')
        printed = operate("verify")
    assert said in " ".join(printed.out.split())
    assert printed.code == (0 if passed else 1)


def test_everything_in_order_exits_0(made: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest") as web, node_worlds.coordinator() as coordinator:
        configure(made, f'ollama_url = "{web.url}"', f'coordinator = "{coordinator.url}/api"')
        printed = operate("verify")
    assert printed.code == 0
    assert [line[0] for line in printed.out.splitlines() if not line.startswith(" ")] == ["✓"] * 7
    assert coordinator.calls("/api/healthz") == [b""]


def test_each_fault_is_found_by_itself(made: Home, operate: Operate) -> None:
    made.poe_key.chmod(LOOSE)
    with node_worlds.ollama() as web:
        configure(made, f'ollama_url = "{web.url}"', 'coordinator = "http://127.0.0.1:9/api"')
        printed = operate("verify")
    failed = [line.split()[1] for line in printed.out.splitlines() if line.startswith("✗")]
    assert failed == ["keys", "models", "coordinator"]
    assert printed.code == 1
    assert "models pull llama3.2" in " ".join(printed.out.split())


def test_a_model_that_is_asked_for_must_be_installed(made: Home, operate: Operate) -> None:
    with node_worlds.ollama("llama3.2:latest") as web:
        configure(made, f'ollama_url = "{web.url}"', 'models = ["llama3.2", "qwen3:8b"]')
        printed = " ".join(operate("verify").out.split())
    assert "qwen3:8b is not installed; run: parallelix-node models pull qwen3:8b" in printed


def test_a_broken_configuration_is_a_finding_not_a_crash(made: Home, operate: Operate) -> None:
    configure(made, "slots = 0")
    printed = operate("verify")
    assert printed.code == 1 and "✗ config" in printed.out


def test_a_missing_model_file_is_a_finding(made: Home, operate: Operate, tmp_path: Path) -> None:
    configure(
        made, 'runtime = "llama_cpp"', f'gguf = ["{tmp_path}/none.gguf"]', 'coordinator = "http://127.0.0.1:9/api"'
    )
    printed = operate("verify")
    assert printed.code == 1 and "none.gguf" in "".join(printed.out.split())
