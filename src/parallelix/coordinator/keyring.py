"""API keys as calls find them: by the hash of what was sent, and by the account that they are of."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

from parallelix.engine.entities import ApiKey


class Keyring:
    """The engine's own keys, so that a limit or an end that it sets holds at once."""

    def __init__(self) -> None:
        self._by_hash: dict[str, ApiKey] = {}
        self._of_account: dict[str, dict[str, ApiKey]] = {}

    def add(self, keys: Iterable[ApiKey]) -> None:
        for key in keys:
            self._by_hash[key.key_hash] = key
            self._of_account.setdefault(key.account, {})[key.key_id] = key

    def drop(self, keys: Iterable[ApiKey]) -> None:
        for key in keys:
            self._by_hash.pop(key.key_hash, None)
            own = self._of_account.get(key.account, {})
            own.pop(key.key_id, None)
            if not own:
                self._of_account.pop(key.account, None)

    def find(self, secret: str) -> ApiKey | None:
        return self._by_hash.get(hashlib.sha256(secret.encode()).hexdigest())

    def of(self, account: str) -> Sequence[ApiKey]:
        """All of an account's, sessions and dead ones too, oldest first."""
        return sorted(self._of_account.get(account, {}).values(), key=lambda key: (key.created_at, key.key_id))

    def get(self, account: str, key_id: str) -> ApiKey | None:
        return self._of_account.get(account, {}).get(key_id)
