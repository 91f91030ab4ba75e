"""The contracts as tests deploy them: compiled from their sources by titanoboa, or from a source with a planted bug."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Generator
from pathlib import Path
from typing import Any

import boa

REPOSITORY = Path(__file__).resolve().parent.parent.parent
SOURCES = REPOSITORY / "contracts" / "src" / "parallelix_contracts" / "sources"

START = 1_800_000_000
"""2027-01-15 08:00 UTC, in seconds: a run begins at this moment whenever it is made, so that it can be made again."""
boa.env.evm.patch.timestamp = START

_replaced: dict[str, str] = {}


def contract_source(name: str) -> str:
    return _replaced.get(name) or (SOURCES / f"{name}.vy").read_text()


def deployer_of(name: str) -> Any:
    """What deploys contract `name`: `deployer_of("PRLX")(tax_recipient)`, or `.at(address)`."""
    return _compiled(name, contract_source(name))


@contextlib.contextmanager
def replaced_source(name: str, source: str) -> Generator[None]:
    """Until it ends, `deployer_of(name)` deploys this source."""
    assert name not in _replaced, name
    _replaced[name] = source
    try:
        yield
    finally:
        del _replaced[name]


# Five contracts, and one planted bug at a time; a compiled contract with its source map weighs a few MiB.
@functools.lru_cache(maxsize=12)
def _compiled(name: str, source: str) -> Any:
    boa.interpret.set_search_paths([str(SOURCES)])
    return boa.loads_partial(source, name=name, filename=SOURCES / f"{name}.vy", dedent=False)
