"""`python -m bench.eager_node …`: bench.echo_node, back a moment after its coordinator, however often that dies.

A real one waits up to eight seconds, which would be most of a run whose coordinators live for one.
"""

from __future__ import annotations

import logging
import sys

from bench import echo_node
from parallelix.node import backoff

WAIT_SECONDS_MAX = 0.3

if __name__ == "__main__":
    backoff.WAIT_SECONDS_MAX = WAIT_SECONDS_MAX
    logging.disable(logging.INFO)
    sys.exit(echo_node.main(sys.argv[1:]))
