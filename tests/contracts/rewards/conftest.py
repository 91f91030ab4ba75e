from __future__ import annotations

import pytest
from network import Network
from rewards_stage import PRLX, Stage, now, pass_time


@pytest.fixture
def stage(network: Network) -> Stage:
    """Rewards without a stream."""
    return Stage(network=network, owners=[])


@pytest.fixture
def streaming(stage: Stage, stream_id: int) -> Stage:
    """Rewards with the production stream, which began this second."""
    assert stage.rewards.streamId() == stream_id
    return stage


@pytest.fixture
def node(streaming: Stage) -> int:
    """A node of tier 1 with the least stake, online and alone, in rewards whose stream is an hour ahead of it."""
    pass_time(3_600)
    node_id = streaming.stake()
    streaming.online(node_id)
    return node_id


@pytest.fixture
def pair(streaming: Stage) -> tuple[int, int]:
    """Two such nodes: half of everything is each one's."""
    pass_time(3_600)
    node_ids = streaming.stake("first"), streaming.stake("second")
    streaming.online(*node_ids)
    return node_ids


@pytest.fixture
def paid_by_income(stage: Stage) -> int:
    """A node online and alone in rewards without a stream, at the start of the day that pays it 86,400 PRLX."""
    node_id = stage.stake()
    stage.fund(86_400 * PRLX)
    stage.pull()
    pass_time(86_400 - now() % 86_400)
    stage.online(node_id)
    return node_id
