from __future__ import annotations

from collections.abc import Generator
from typing import Any

import boa
import pytest
from anchor_scene import commit, deploy_anchor


@pytest.fixture
def anchor() -> Generator[Any]:
    """An anchor with no batch but batch 0 and a commitment for epoch 0."""
    with boa.env.anchor():
        contract = deploy_anchor()
        commit(contract, 0)
        yield contract
