from __future__ import annotations

import pytest
from world import World


@pytest.fixture
def world() -> World:
    """A funded account with a key, and no nodes."""
    made = World()
    made.fund()
    made.issue_key()
    return made
