from __future__ import annotations

from collections.abc import Generator
from typing import Any

import boa
import pytest
from prlx_scene import deploy_funded_token


@pytest.fixture
def token() -> Generator[Any]:
    with boa.env.anchor():
        yield deploy_funded_token()
