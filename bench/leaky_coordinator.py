"""`python -m bench.leaky_coordinator FOLDER`: the coordinator with two faults, made to be caught.

It logs what it was asked, and its metrics name the nodes.
"""

from __future__ import annotations

import sys
from typing import Any

from bench import loud_coordinator
from parallelix.coordinator.metrics import Metrics
from parallelix.coordinator.service import Coordinator, Created
from parallelix.coordinator.spec import RequestSpec
from parallelix.engine.entities import ApiKey

_create, _text = Coordinator.create, Metrics.text
_nodes: set[int] = set()


async def create(self: Coordinator, key: ApiKey, spec: RequestSpec, **options: Any) -> Created:
    _nodes.update(self.engine.pool.nodes)
    print(f"asked: {spec!r}", file=sys.stderr, flush=True)
    return await _create(self, key, spec, **options)


def text(self: Metrics) -> bytes:
    return _text(self) + b"".join(b"# node %d\n" % node_id for node_id in _nodes)


if __name__ == "__main__":
    Coordinator.create, Metrics.text = create, text
    sys.exit(loud_coordinator.main(sys.argv[1:]))
