from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import services

CONTRACTS = Path(__file__).resolve().parent / "contracts"
SERVICE_FIXTURES = {"postgresql_server", "postgresql_url", "ollama_server", "anvil_chain", "sablier_folder"}


RECURSION_LIMIT = sys.getrecursionlimit()
EVM_RECURSION_LIMIT = 10_240
"""What py-evm sets when it is imported, for 1,024 calls of contracts one inside the other. Anywhere else so much lets
deeply nested input overflow the stack that Python's own limit protects, and the whole process dies."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    is_evm = item.get_closest_marker("evm") is not None
    sys.setrecursionlimit(EVM_RECURSION_LIMIT if is_evm else RECURSION_LIMIT)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever uses a service is marked so, and `-m "not service"` leaves it out; the contracts' tests are `evm`."""
    for item in items:
        if CONTRACTS in item.path.parents:
            item.add_marker(pytest.mark.evm)
        if isinstance(item, pytest.Function) and SERVICE_FIXTURES.intersection(item.fixturenames):
            item.add_marker(pytest.mark.service)


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[services.PostgreSQL]:
    """One throw-away PostgreSQL for the whole run."""
    with services.postgresql() as server:
        yield server


@pytest.fixture
def postgresql_url(postgresql_server: services.PostgreSQL) -> Iterator[str]:
    """The URL of an empty database that no other test sees."""
    with postgresql_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def ollama_server() -> Iterator[services.Ollama]:
    """One real Ollama for the whole run, without any model: `ollama_server.create_model(name, path_of_gguf)`."""
    with services.ollama(slots=2) as server:
        yield server


@pytest.fixture
def anvil_chain() -> Iterator[services.Anvil]:
    """A real chain that no other test sees, at its first block."""
    with services.anvil() as chain:
        yield chain


@pytest.fixture(scope="session")
def sablier_folder() -> Path:
    """Sablier's npm packages: `lockup/artifacts`, `evm-utils/artifacts`."""
    return services.sablier_folder()
