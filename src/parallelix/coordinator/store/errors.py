"""What can go wrong with the store. Whoever gets one out of a commit must end the process and start again from the
store, because memory is ahead of it.

StoreError
├── StoreUnreachable    cannot be opened, or the connection broke
├── StoreBusy           another coordinator leads it
├── StoreUnsafe         its settings could lose an acknowledged commit
├── StoreTooNew         a later version of this software changed its schema
├── StoreCorrupt        the disk gave back something else than was written
├── StoreConflict       a row contradicts what is there: a repeated append, or a parent that does not exist
├── StoreFailed         a commit failed for another reason (disk full, connection lost)
└── LeaseLost           another coordinator took over; nothing of this commit was written
"""

from __future__ import annotations


class StoreError(Exception):
    pass


class StoreUnreachable(StoreError):
    pass


class StoreBusy(StoreError):
    pass


class StoreUnsafe(StoreError):
    """`setting` stands at `value`, which could lose an acknowledged commit; only `required` will do."""

    def __init__(self, setting: str, value: object, required: object, way_out: str) -> None:
        super().__init__(
            f"{setting} is {value}, which could lose an acknowledged commit; it must be {required}: {way_out}"
        )
        self.setting, self.value, self.required = setting, value, required


class StoreTooNew(StoreError):
    pass


class StoreCorrupt(StoreError):
    pass


class StoreConflict(StoreError):
    pass


class StoreFailed(StoreError):
    pass


class LeaseLost(StoreError):
    """The lease of `epoch` ended: another coordinator leads the store."""

    def __init__(self, epoch: int) -> None:
        super().__init__(f"the lease of epoch {epoch} was lost: another coordinator leads this store, so this one ends")
        self.epoch = epoch
