from __future__ import annotations

from typing import Any

import boa
import pytest
from anchor_scene import VALIDATOR, AnchoredBatch, anchor_next, commit, deploy_anchor, next_batch

GAS_MAX = 90_000
TRANSACTION_GAS, ZERO_BYTE_GAS, OTHER_BYTE_GAS = 21_000, 4, 16
"""What a transaction costs before any code runs; the last two for each byte of its data."""


def data_gas(anchor: Any, batch: AnchoredBatch) -> int:
    data = anchor.anchorBatch.prepare_calldata(*batch.arguments)
    return ZERO_BYTE_GAS * data.count(0) + OTHER_BYTE_GAS * (len(data) - data.count(0))


def gas_of_anchoring(*, count: int, batches_before: int) -> tuple[int, int]:
    """What a batch of `count` records costs to run, and as a transaction.

    On a chain of its own: titanoboa takes all calls for one transaction, in which slots once read or written are cheap,
    until the changes are locked, and no test could undo those.
    """
    with boa.swap_env(boa.Env()):
        anchor = deploy_anchor()
        commit(anchor, 0)
        for _ in range(batches_before):
            anchor_next(anchor)
        batch = next_batch(anchor, count=count)
        boa.env.evm.vm.state.lock_changes()
        anchor.anchorBatch(*batch.arguments, sender=VALIDATOR)
        run_gas = anchor.call_trace().gas_used
        return run_gas, TRANSACTION_GAS + data_gas(anchor, batch) + run_gas


@pytest.mark.parametrize("batches_before", [0, 1, 5])
def test_anchoring_runs_for_the_same_gas_however_many_records(batches_before: int) -> None:
    counts = (1, 2, 1_000, 1_000_000, 2**32)

    assert len({gas_of_anchoring(count=count, batches_before=batches_before)[0] for count in counts}) == 1


@pytest.mark.parametrize("batches_before", [0, 1])
def test_anchoring_stays_within_90_000_gas(batches_before: int) -> None:
    """The first batch is the dearest: it fills the slot of the head."""
    for count in (1, 1_000_000, 2**32):
        run_gas, transaction_gas = gas_of_anchoring(count=count, batches_before=batches_before)

        assert run_gas + TRANSACTION_GAS < transaction_gas <= GAS_MAX
