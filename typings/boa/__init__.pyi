"""The part of titanoboa that the contract tests use; a contract's own functions are known only when it is compiled."""

from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from boa import interpret as interpret

class BoaError(Exception):
    stack_trace: Any
    call_trace: Any

class EvmState:
    timestamp: int
    block_number: int
    chain_id: int

class EvmAccess:
    patch: EvmState
    chain: Any
    vm: Any

class Env:
    evm: EvmAccess
    eoa: str
    timestamp: int
    def anchor(self) -> AbstractContextManager[None]: ...
    def prank(self, address: str) -> AbstractContextManager[None]: ...
    def generate_address(self, alias: str | None = None) -> str: ...
    def set_balance(self, address: str, value: int) -> None: ...
    def get_balance(self, address: str) -> int: ...
    def get_code(self, address: str) -> bytes: ...
    def set_code(self, address: str, code: bytes) -> None: ...
    def time_travel(
        self, seconds: int | None = None, blocks: int | None = None, block_delta: int | None = None
    ) -> None: ...
    def deploy_code(self, **arguments: Any) -> tuple[str, bytes]: ...
    def raw_call(self, to_address: str, **arguments: Any) -> Any: ...
    def execute_code(self, **arguments: Any) -> Any: ...

env: Env

def loads_partial(
    source_code: str,
    name: str | None = None,
    filename: str | Path | None = None,
    dedent: bool = True,
    compiler_args: dict[str, Any] | None = None,
    no_vvm: bool = False,
) -> Any: ...
def loads_abi(json_str: str, *, name: str | None = None) -> Any: ...
def load_abi(filename: str | Path, *, name: str | None = None) -> Any: ...
def reverts(reason: str | None = None, /, **arguments: Any) -> AbstractContextManager[None]: ...
