"""A chain over JSON-RPC, by web3.py. Only this module speaks to an endpoint; here foreign errors become ours."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeVar, cast
from urllib.parse import SplitResult, urlsplit

import aiohttp
from eth_utils.address import to_checksum_address
from web3 import AsyncWeb3
from web3.exceptions import BlockNotFound, ContractLogicError, TransactionNotFound, Web3Exception, Web3RPCError
from web3.providers.async_base import AsyncJSONBaseProvider
from web3.types import (
    BlockData,
    BlockIdentifier,
    FilterParams,
    LogReceipt,
    RPCEndpoint,
    RPCResponse,
    TxParams,
    TxReceipt,
)

from parallelix.chain.abi import Address, Log
from parallelix.chain.errors import BadArgument, ChainUnreachable, Reverted, RpcRefused, from_revert
from parallelix.chain.ports import Block, Receipt

REQUEST_SECONDS = 30.0
"""A public endpoint answers within a second; one that takes longer than this is not going to."""
KEY_MIN = 6
"""Characters of a part of a URL that may be a key; shorter ones are versions and names."""
TRIES = 3
"""Of a request whose connection broke. The same signed transaction twice is still one transaction."""
RETRY_SECONDS = 0.125
"""Before the second try; twice as long before each further one."""
JSON_HEADERS = {"content-type": "application/json"}
HASH_BYTES = 32
BLOOM_BYTES = 256
COUNT_MAX = 2**53 - 1
"""No block's number and no second comes near it, and every store holds it."""
NO_PROPER_ANSWER = (Web3Exception, ValueError, TypeError, LookupError, AttributeError, RecursionError)
"""What web3 and we stumble over when an answer is not what the method gives."""
A = TypeVar("A")
T = TypeVar("T")


class Fees:
    """What a gas unit may cost, in wei (EIP-1559)."""

    __slots__ = ("most_wei", "tip_wei")

    def __init__(self, *, most_wei: int, tip_wei: int) -> None:
        self.most_wei = most_wei
        self.tip_wei = tip_wei


class _Provider(AsyncJSONBaseProvider):
    """One session for one endpoint. web3's own provider takes a lock in a thread for every request, and one that is
    cancelled meanwhile leaves it locked for good: nothing is ever answered again."""

    def __init__(self, url: str, *, tries: int, request_seconds: float) -> None:
        super().__init__()
        self._url = url
        self._tries = tries
        self._timeout = aiohttp.ClientTimeout(total=request_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def make_request(self, method: RPCEndpoint, params: Any) -> RPCResponse:
        question = self.encode_rpc_request(method, params)
        for tries_left in reversed(range(self._tries)):
            try:
                return self.decode_rpc_response(await self._post(question))
            except (aiohttp.ClientError, TimeoutError):
                if not tries_left:
                    raise
                await asyncio.sleep(RETRY_SECONDS * 2 ** (self._tries - tries_left - 1))
        raise AssertionError(f"{self._tries} tries")

    async def _post(self, question: bytes) -> bytes:
        if self._session is None:
            # A connection that was kept may be gone at the other end, which shows only when it is used again.
            connector = aiohttp.TCPConnector(force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, raise_for_status=True, timeout=self._timeout)
        async with self._session.post(self._url, data=question, headers=JSON_HEADERS) as answer:
            return await answer.read()

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


class Rpc:
    """One endpoint. Every method raises `ChainUnreachable` or `RpcRefused` where it gets no proper answer."""

    def __init__(self, url: str, *, tries: int = TRIES, request_seconds: float = REQUEST_SECONDS) -> None:
        parts = _parts(url)
        # Hosted endpoints carry the customer's key in path or user name, which no message may show.
        self.name = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self._hidden = [each for each in re.split(r"[/?&=:@]", url.replace(self.name, "", 1)) if len(each) >= KEY_MIN]
        if parts.username is not None:
            self._hidden += [each for each in (parts.username, parts.password or "") if len(each) >= KEY_MIN]
        self._provider = _Provider(url, tries=tries, request_seconds=request_seconds)
        # web3's middleware asks for the chain's id before each call, and resolves names; we give ids and addresses.
        self._eth = AsyncWeb3(self._provider, middleware=[]).eth

    async def close(self) -> None:
        await self._provider.close()

    async def chain_id(self) -> int:
        return await self._ask(self._eth.chain_id, _number)

    async def block_number(self) -> int:
        return await self._ask(self._eth.block_number, _number)

    async def block_time(self, block: int | None = None) -> int:
        """Unix seconds of a block, the newest by default."""
        return await self._ask(self._eth.get_block(_block(block)), lambda found: _number(found.get("timestamp")))

    async def block(self, number: int | None = None) -> Block | None:
        """A block by its number, the newest by default; None where the endpoint does not have it (yet)."""
        try:
            found = await self._ask(self._eth.get_block(_block(number)), _block_found)
        except RpcRefused as error:
            if isinstance(error.__cause__, BlockNotFound):
                return None
            raise
        if number is not None and found.number != number:
            raise ChainUnreachable(f"{self.name}: asked for block {number}, answered with block {found.number}")
        return found

    async def code(self, address: Address) -> bytes:
        return await self._ask(self._eth.get_code(to_checksum_address(address)), bytes)

    async def balance_wei(self, address: Address) -> int:
        """What the account has to pay fees with."""
        return await self._ask(self._eth.get_balance(to_checksum_address(address)), _number)

    async def nonce(self, address: Address, *, pending: bool = False, block: int | None = None) -> int:
        """How many transactions of the account are in blocks, in those up to `block`, or also on their way there."""
        at: BlockIdentifier = "pending" if pending else _block(block)
        return await self._ask(self._eth.get_transaction_count(to_checksum_address(address), at), _number)

    async def fees(self) -> Fees:
        """Enough for the next block even if it costs twice what the newest one does."""
        tip_wei = await self._ask(self.request("eth_maxPriorityFeePerGas"), lambda found: int(found, 16))
        return Fees(most_wei=2 * await self.base_fee_wei() + tip_wei, tip_wei=tip_wei)

    async def base_fee_wei(self) -> int:
        """What a unit of gas cost in the newest block, without a tip."""
        return await self._ask(self._eth.get_block("latest"), lambda found: _number(found.get("baseFeePerGas")))

    async def call(
        self, to: Address, data: bytes, *, sender: Address | None = None, value_wei: int = 0, block: int | None = None
    ) -> bytes:
        transaction = _transaction(to, data, sender=sender, value_wei=value_wei)
        return await self._ask(self._eth.call(transaction, _block(block)), bytes)

    async def estimate_gas(self, to: Address | None, data: bytes, *, sender: Address, value_wei: int = 0) -> int:
        """What a transaction would take now. Raises `Reverted` for one that would."""
        transaction = _transaction(to, data, sender=sender, value_wei=value_wei)
        return await self._ask(self._eth.estimate_gas(transaction), _number)

    async def send_raw(self, signed: bytes) -> None:
        """Hands a signed transaction to the endpoint; one that it has already is no error."""
        try:
            await self._ask(self._eth.send_raw_transaction(signed), bytes)
        except RpcRefused as error:
            if not any(known in error.message.lower() for known in ("already known", "already imported")):
                raise

    async def receipt(self, transaction_hash: str) -> Receipt | None:
        """None until it is in a block. Raises `Reverted`, with the reason where the endpoint can still tell."""
        found = await self._receipt(transaction_hash)
        if found is None:
            return None
        succeeded, receipt = found
        if not succeeded:
            raise await self._why(receipt)
        return receipt

    async def mined_block(self, transaction_hash: str) -> int | None:
        """The block that a transaction is in now, be it that it reverted there; None while it is in none."""
        found = await self._receipt(transaction_hash)
        return None if found is None else found[1].block_number

    async def _receipt(self, transaction_hash: str) -> tuple[bool, Receipt] | None:
        try:
            asked = self._eth.get_transaction_receipt(cast(Any, transaction_hash))
            return await self._ask(asked, lambda found: (bool(found["status"]), _receipt(found)))
        except RpcRefused as error:
            if isinstance(error.__cause__, TransactionNotFound):
                return None
            raise

    async def logs(
        self, *, addresses: Sequence[Address], topics: Sequence[bytes], first_block: int, last_block: int
    ) -> list[Log]:
        return await self._logs(addresses, topics, {"fromBlock": first_block, "toBlock": last_block})

    async def logs_of_block(
        self, block_hash: str, *, addresses: Sequence[Address], topics: Sequence[bytes]
    ) -> list[Log]:
        """The same of one block, which many nodes read from the block itself and not from their index of logs."""
        return await self._logs(addresses, topics, {"blockHash": block_hash})

    async def _logs(self, addresses: Sequence[Address], topics: Sequence[bytes], where: dict[str, Any]) -> list[Log]:
        wanted = {"address": [to_checksum_address(each) for each in addresses], **where}
        if topics:
            wanted["topics"] = [["0x" + each.hex() for each in topics]]
        return await self._ask(
            self._eth.get_logs(cast(FilterParams, wanted)), lambda found: [_log(each) for each in found]
        )

    async def request(self, method: str, *parameters: object) -> Any:
        """Any other method, such as a test node's own."""
        answer = await self._ask(self._provider.make_request(RPCEndpoint(method), list(parameters)), dict)
        if "error" in answer:
            raise self._refused(answer, method)
        return answer["result"]

    async def _ask(self, question: Awaitable[A], read: Callable[[A], T]) -> T:
        with self._ours():
            return read(await question)

    async def _why(self, receipt: Receipt) -> Reverted:
        """The reason of a transaction that reverted, found by asking again after its block: what made it revert may
        stand in the same block before it."""
        what = f"transaction {receipt.transaction_hash}"
        try:
            asked = self._eth.get_transaction(cast(Any, receipt.transaction_hash))
            call = await self._ask(asked, lambda sent: {key: sent.get(key) for key in ("from", "to", "input", "value")})
            with self._ours():
                await self._eth.call(cast(TxParams, call), _block(receipt.block_number))
        except Reverted as error:
            return error.during(what)
        except (RpcRefused, ChainUnreachable):
            # An endpoint that keeps no old state.
            pass
        return from_revert(b"", what=what)

    def _refused(self, answer: Mapping[str, Any], otherwise: str) -> RpcRefused:
        given = answer.get("error")
        if not isinstance(given, dict):
            return RpcRefused(f"{self.name}: {self._shown(given or otherwise, 300)}")
        error = cast("dict[str, Any]", given)
        shown = self._shown(error.get("message", otherwise), 300)
        return RpcRefused(f"{self.name}: {shown}", rpc_code=error.get("code"))

    def _shown(self, told: object, characters_max: int) -> str:
        """What an endpoint or a library says, without the keys that it may repeat."""
        text = str(told)
        for each in self._hidden:
            text = text.replace(each, "…")
        return text[:characters_max]

    @contextmanager
    def _ours(self) -> Generator[None]:
        try:
            yield
        except ContractLogicError as error:
            raise from_revert(_revert_data(error)) from error
        except Web3RPCError as error:
            raise self._refused(error.rpc_response or {}, error.message) from error
        except aiohttp.ClientResponseError as error:
            raise ChainUnreachable(
                f"{self.name}: HTTP status {error.status} ({self._shown(error.message, 100)}); check the URL and its"
                " key"
            ) from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise ChainUnreachable(
                f"{self.name}: {type(error).__name__}: {self._shown(str(error) or 'no answer', 300)}; check the URL and"
                " that the node runs"
            ) from error
        except NO_PROPER_ANSWER as error:
            shown = f"{type(error).__name__}: {self._shown(error, 200)}"
            raise ChainUnreachable(
                f"{self.name}: this is no answer of an Ethereum JSON-RPC endpoint ({shown})"
            ) from error


@asynccontextmanager
async def connected(url: str, *, tries: int = TRIES, request_seconds: float = REQUEST_SECONDS) -> AsyncGenerator[Rpc]:
    rpc = Rpc(url, tries=tries, request_seconds=request_seconds)
    try:
        yield rpc
    finally:
        await rpc.close()


def _parts(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        if parts.scheme in ("http", "https") and parts.hostname and (parts.port is None or parts.port > 0):
            return parts
    except ValueError:
        # Without the cause, which may repeat the URL and the key in it.
        pass
    scheme, found, _ = url.partition("://")
    raise BadArgument(
        "rpc",
        f"'{scheme[:10] + '://' if found else ''}…' is no http:// or https:// URL of an Ethereum JSON-RPC endpoint,"
        " with a host and a port that can be",
    ) from None


def _transaction(to: Address | None, data: bytes, *, sender: Address | None, value_wei: int) -> TxParams:
    transaction: dict[str, Any] = {"data": "0x" + data.hex(), "value": value_wei}
    if to is not None:
        transaction["to"] = to_checksum_address(to)
    if sender is not None:
        transaction["from"] = to_checksum_address(sender)
    return cast(TxParams, transaction)


def _number(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"expected a number, got {str(value)[:80]!r}")
    return value


def _block(number: int | None) -> BlockIdentifier:
    return "latest" if number is None else number


def _block_found(found: BlockData) -> Block:
    number, time = _number(found.get("number")), _number(found.get("timestamp"))
    if max(number, time) > COUNT_MAX:
        raise ValueError(f"block {number} of second {time}, at most {COUNT_MAX}")
    bloom = found.get("logsBloom")
    return Block(
        number=number,
        hash=_hash(found.get("hash")),
        parent_hash=_hash(found.get("parentHash")),
        time=time,
        bloom=bytes(bloom) if isinstance(bloom, bytes) and len(bloom) == BLOOM_BYTES else b"",
    )


def _hash(value: object) -> str:
    if not isinstance(value, bytes) or len(value) != HASH_BYTES:
        raise TypeError(f"expected a hash of {HASH_BYTES} bytes, got {str(value)[:80]!r}")
    return "0x" + value.hex()


def _receipt(found: TxReceipt) -> Receipt:
    created = found.get("contractAddress")
    return Receipt(
        transaction_hash="0x" + found["transactionHash"].hex(),
        block_number=found["blockNumber"],
        gas_used=found["gasUsed"],
        contract=to_checksum_address(created) if created else None,
        logs=tuple(_log(each) for each in found["logs"]),
    )


def _log(found: LogReceipt) -> Log:
    if found.get("removed"):
        raise ValueError("a log that is marked as removed, where none such was asked for")
    return Log(
        address=to_checksum_address(found["address"]),
        topics=tuple(bytes(each) for each in found["topics"]),
        data=bytes(found["data"]),
        block_number=_number(found["blockNumber"]),
        transaction_hash=_hash(found["transactionHash"]),
        log_index=_number(found["logIndex"]),
        block_hash=_hash(found["blockHash"]),
    )


def _revert_data(error: ContractLogicError) -> bytes:
    data: Any = error.data
    if isinstance(data, dict):
        data = cast("dict[str, Any]", data).get("data")
    try:
        return bytes.fromhex(str(data).removeprefix("Reverted ").removeprefix("0x"))
    except ValueError:
        return b""
