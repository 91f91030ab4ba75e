"""Everything that talking to the chain can meet, in one tree. Foreign errors become these once, at the edge.

ChainError
├── ChainUnreachable        no answer from the endpoint, or one that is no JSON-RPC
├── RpcRefused              the endpoint answered with an error of its own
├── WrongChain              the endpoint serves another chain than the one asked for
├── NotMined                a transaction that no block took in time; it may still be taken
├── BadArgument             a value that the contract's type cannot hold: our caller's mistake
├── BadResult               bytes that are not what the binding says: another contract, or none, at the address
├── KeyRefused              no deployer's key, or one that others can read
├── DeploymentRefused       a deployment that cannot begin or go on; nothing was sent
├── WalletRefused           what an account cannot do, so nothing was sent; or nobody knows yet what became of it
├── StateMissing            the endpoint no longer has the state of the block that was asked about
├── ChainDoubted            what an endpoint says cannot be so; nothing of it is believed
│   ├── ReorgTooDeep        a block that was confirmed is not in the chain any more
│   ├── LogRefused          a log that was not asked for, or stands in a block that does not hold it
│   ├── LogsDiffer          a log that does not follow from those before it
│   ├── EndpointsDiffer     two endpoints tell the same blocks in two ways
│   └── ChainLies           what the logs add up to is not what the contract's own views say
└── Reverted                a contract said no, and nothing has changed
    ├── UnknownRevert       for no reason that we know
    ├── TokenRefused        "prlx: …" and "erc20: …"
    ├── OwnershipRefused    "ownable: …" and "ownable_2step: …"
    ├── SignatureRefused    "ecdsa: …"
    ├── AnchorRefused       "anchor: …"
    ├── LockerRefused       "locker: …"
    ├── RewardsRefused      "rewards: …"
    └── VaultRefused        "vault: …"

Each reason that a contract gives is one class below these, with the reason as `reason` and what to do as `way_out`.
"""

from __future__ import annotations

from typing import ClassVar, Literal, TypeAlias

from eth_abi import abi
from eth_abi.exceptions import DecodingError

REASON_CHARACTERS_MAX = 300
"""Ours have at most 60. A stranger's contract can give a novel as its reason."""
_ERROR_SELECTOR = bytes.fromhex("08c379a0")
_PANIC_SELECTOR = bytes.fromhex("4e487b71")
Part: TypeAlias = Literal["registry", "vault", "anchor", "chain"]
_BY_REASON: dict[str, type[Reverted]] = {}


class ChainError(Exception):
    """`code` is stable; the message names the thing, the value, the bound and the way out."""

    code: ClassVar[str] = "chain.failed"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ChainUnreachable(ChainError):
    code = "chain.unreachable"


class RpcRefused(ChainError):
    """`rpc_code` is the endpoint's own, if it gave one."""

    code = "chain.rpc_refused"

    def __init__(self, message: str, *, rpc_code: int | None = None) -> None:
        super().__init__(message)
        self.rpc_code = rpc_code


class WrongChain(ChainError):
    code = "chain.wrong_chain"


class NotMined(ChainError):
    code = "chain.not_mined"

    def __init__(self, transaction_hash: str, *, waited_seconds: float) -> None:
        super().__init__(
            f"transaction {transaction_hash} is in no block after {waited_seconds:.0f} s; it may still be taken:"
            " run the same command again, which waits for it and raises its fee where that is too low"
        )
        self.transaction_hash = transaction_hash


class BadArgument(ChainError):
    code = "chain.bad_argument"

    def __init__(self, signature: str, why: str) -> None:
        super().__init__(f"{signature}: {why}")


class BadResult(ChainError):
    code = "chain.bad_result"

    def __init__(self, signature: str, why: str) -> None:
        super().__init__(
            f"{signature}: the answer is not what this contract gives ({why}); check the address and the chain"
        )


class KeyRefused(ChainError):
    code = "chain.key_refused"


class DeploymentRefused(ChainError):
    code = "chain.deployment_refused"


class StateMissing(ChainError):
    """`block` is the one whose state was asked for."""

    code = "chain.state_missing"

    def __init__(self, block: int, *, given: str) -> None:
        super().__init__(
            f"block {block}: the endpoint no longer has its state ({given}); nothing was believed of what could not be"
            " checked there: use an endpoint that keeps the state of old blocks (an archive node) until we are up to"
            " date"
        )
        self.block = block


class ChainDoubted(ChainError):
    """`part` is what should not go on while it is so: "registry", "vault", "anchor", or the whole "chain"."""

    code = "chain.doubted"
    part: Part = "chain"


class ReorgTooDeep(ChainDoubted):
    code = "chain.reorg_too_deep"

    def __init__(self, block: int, *, ours: str, theirs: str, confirmations: int) -> None:
        super().__init__(
            f"block {block}: read with hash {ours} under {confirmations} confirmations, now it is {theirs}; the chain"
            " was reorganised deeper than that, or the endpoint serves another one: check the endpoint first. If"
            " the chain is right, what was credited from the old blocks must be looked through by hand"
        )
        self.block = block
        self.ours = ours
        self.theirs = theirs


class LogRefused(ChainDoubted):
    code = "chain.log_refused"

    def __init__(self, what: str, why: str) -> None:
        super().__init__(f"{what}: {why}; the endpoint is broken or lies, use another one")


class LogsDiffer(ChainDoubted):
    code = "chain.logs_differ"

    def __init__(self, part: Part, why: str) -> None:
        super().__init__(
            f"{part}: {why}; a log was lost, made up or changed: use another endpoint, and a second one to check it"
        )
        self.part = part


class EndpointsDiffer(ChainDoubted):
    code = "chain.endpoints_differ"

    def __init__(self, first_block: int, last_block: int, *, what: str, ours: str, theirs: str) -> None:
        super().__init__(
            f"blocks {first_block} to {last_block}: the endpoint says {what} {ours}, the check endpoint {theirs}; one"
            " of them is broken or lies: compare both with a third"
        )


class ChainLies(ChainDoubted):
    """`ours` is what the logs add up to, `theirs` what a view answers at the same block."""

    code = "chain.lies"

    def __init__(self, part: Part, what: str, *, ours: object, theirs: object, block: int) -> None:
        super().__init__(
            f"{part}, block {block}: {what} is {ours} by the logs and {theirs} by the contract; a log was lost, made up"
            " or changed: use another endpoint, and a second one to check it"
        )
        self.part = part
        self.what = what
        self.ours = ours
        self.theirs = theirs


class WalletRefused(ChainError):
    code = "chain.wallet_refused"


class Reverted(ChainError):
    """A contract refused. `what` names the call, where it is known."""

    code = "chain.reverted"
    reason: ClassVar[str] = ""
    way_out: ClassVar[str] = ""
    what: str = ""

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "reason" in cls.__dict__:
            assert cls.reason not in _BY_REASON, cls.reason
            _BY_REASON[cls.reason] = cls

    def __init__(self, *, what: str = "") -> None:
        super().__init__(f"{what + ': ' if what else ''}{self.reason}; {self.way_out}")
        self.what = what

    def during(self, what: str) -> Reverted:
        """The same refusal, of a call that is named."""
        return type(self)(what=what)


class UnknownRevert(Reverted):
    """`given` is the reason as text, empty when there was none; `data` what came back, as 0x-hex."""

    def __init__(self, given: str, *, data: bytes, what: str = "") -> None:
        shown = given or f"no reason (returned {_hex(data)}): an overflow, too little gas, a locked or another contract"
        ChainError.__init__(self, f"{what + ': ' if what else ''}reverted with {shown}")
        self.given = given
        self.data = data
        self.what = what

    def during(self, what: str) -> Reverted:
        return UnknownRevert(self.given, data=self.data, what=what)


def _hex(data: bytes) -> str:
    return "0x" + data[: REASON_CHARACTERS_MAX // 2].hex()


def from_revert(data: bytes, *, what: str = "") -> Reverted:
    """The error for what a reverted call returned."""
    given = _reason(data)
    kind = _BY_REASON.get(given)
    return UnknownRevert(given, data=data, what=what) if kind is None else kind(what=what)


def reasons() -> dict[str, type[Reverted]]:
    """Every reason that has a class, with it."""
    return dict(_BY_REASON)


def _reason(data: bytes) -> str:
    try:
        if data.startswith(_ERROR_SELECTOR):
            return abi.decode(["string"], data[4:])[0][:REASON_CHARACTERS_MAX]
        if data.startswith(_PANIC_SELECTOR):
            return f"panic {abi.decode(['uint256'], data[4:])[0]:#x}"
    except (DecodingError, OverflowError, UnicodeDecodeError):
        return ""
    return ""


class TokenRefused(Reverted):
    """PRLX refused."""


class AlreadyExempt(TokenRefused):
    reason = "prlx: already exempt"
    way_out = "nothing is left to do: an exemption is for good"


class TokenZeroAddress(TokenRefused):
    reason = "prlx: zero address"
    way_out = "give the address of an account"


class MintingDenied(TokenRefused):
    reason = "erc20: access is denied"
    way_out = "nobody can mint: the supply is fixed"


class MinterIsZero(TokenRefused):
    reason = "erc20: minter is the zero address"
    way_out = "nobody can mint: the supply is fixed"


class MinterIsOwner(TokenRefused):
    reason = "erc20: minter is owner address"
    way_out = "nobody can mint: the supply is fixed"


class PermitExpired(TokenRefused):
    reason = "erc20: expired deadline"
    way_out = "sign a permit with a later deadline"


class PermitInvalid(TokenRefused):
    reason = "erc20: invalid signature"
    way_out = "sign with the owner's key, the current nonce, and this token and chain"


class TokenOwnerIsZero(TokenRefused):
    reason = "erc20: new owner is the zero address"
    way_out = "give the address of the new owner"


class TransferFromZero(TokenRefused):
    reason = "erc20: transfer from the zero address"
    way_out = "give the address that holds the tokens"


class TransferToZero(TokenRefused):
    reason = "erc20: transfer to the zero address"
    way_out = "give the address that is to receive"


class BalanceTooLow(TokenRefused):
    reason = "erc20: transfer amount exceeds balance"
    way_out = "send at most the balance"


class MintToZero(TokenRefused):
    reason = "erc20: mint to the zero address"
    way_out = "nobody can mint: the supply is fixed"


class BurnFromZero(TokenRefused):
    reason = "erc20: burn from the zero address"
    way_out = "nobody can burn: the supply is fixed"


class BurnAboveBalance(TokenRefused):
    reason = "erc20: burn amount exceeds balance"
    way_out = "nobody can burn: the supply is fixed"


class ApproveFromZero(TokenRefused):
    reason = "erc20: approve from the zero address"
    way_out = "give the address that holds the tokens"


class ApproveToZero(TokenRefused):
    reason = "erc20: approve to the zero address"
    way_out = "give the address that is to spend"


class AllowanceTooLow(TokenRefused):
    reason = "erc20: insufficient allowance"
    way_out = "approve the contract for the amount first"


class OwnershipRefused(Reverted):
    """Ownership of a contract stays where it is."""


class NewOwnerIsZero(OwnershipRefused):
    reason = "ownable: new owner is the zero address"
    way_out = "give the address of the new owner"


class NotOwner(OwnershipRefused):
    reason = "ownable: caller is not the owner"
    way_out = "send it from the contract's owner"


class NotPendingOwner(OwnershipRefused):
    reason = "ownable_2step: caller is not the new owner"
    way_out = "send it from the account that the owner named"


class SignatureRefused(Reverted):
    """A signature in a form that no contract takes."""


class SignatureMalleable(SignatureRefused):
    reason = "ecdsa: invalid signature `s` value"
    way_out = "use the signature with the lower s"


class SignatureInvalid(SignatureRefused):
    reason = "ecdsa: invalid signature"
    way_out = "sign anew; v must be 27 or 28"


class AnchorRefused(Reverted):
    """ExecutionAnchor refused."""


class AlreadyRevealed(AnchorRefused):
    reason = "anchor: already revealed"
    way_out = "nothing is left to do: the secret is public"


class NotValidator(AnchorRefused):
    reason = "anchor: caller is not the validator"
    way_out = "send it from the validator's key"


class CommitmentEmpty(AnchorRefused):
    reason = "anchor: commitment is empty"
    way_out = "commit to SHA-256 of the secret"


class CountMismatch(AnchorRefused):
    reason = "anchor: count does not match first and last"
    way_out = "count must be last - first + 1"


class BatchEmpty(AnchorRefused):
    reason = "anchor: empty batch"
    way_out = "anchor a batch when there is a record"


class BatchTooLarge(AnchorRefused):
    reason = "anchor: too many records"
    way_out = "anchor at most 2^32 records in a batch"


class EarlierEpochHidden(AnchorRefused):
    reason = "anchor: epoch before last is not revealed"
    way_out = "reveal the secret of the epoch before last first"


class EpochBackwards(AnchorRefused):
    reason = "anchor: epoch goes backwards"
    way_out = "give the newest epoch, which never falls"


class EpochWithoutSuccessor(AnchorRefused):
    reason = "anchor: epoch has no successor yet"
    way_out = "commit to the next epoch first"


class EpochNotCommitted(AnchorRefused):
    reason = "anchor: epoch is not committed"
    way_out = "commit to the epoch first"


class EpochOutOfOrder(AnchorRefused):
    reason = "anchor: epoch is not the next"
    way_out = "take the epochs in order"


class FirstNotNext(AnchorRefused):
    reason = "anchor: first is not the next record"
    way_out = "begin at nextSequence()"


class HeadHashEmpty(AnchorRefused):
    reason = "anchor: head hash is empty"
    way_out = "give the hash of the batch's last record"


class IndexOutsideTree(AnchorRefused):
    reason = "anchor: index outside the tree"
    way_out = "give an index below the count"


class MerkleRootEmpty(AnchorRefused):
    reason = "anchor: merkle root is empty"
    way_out = "give the root over the batch's record hashes"


class NoSuchBatch(AnchorRefused):
    reason = "anchor: no such batch"
    way_out = "give a number below batchCount()"


class NotTheHead(AnchorRefused):
    reason = "anchor: previous hash is not the head"
    way_out = "continue from head(); somebody may have anchored already"


class ProofTooLong(AnchorRefused):
    reason = "anchor: proof is too long"
    way_out = "give the siblings from the leaf to the root and no more"


class ProofTooShort(AnchorRefused):
    reason = "anchor: proof is too short"
    way_out = "give all siblings from the leaf to the root"


class SecretMismatch(AnchorRefused):
    reason = "anchor: secret does not match"
    way_out = "reveal the secret whose SHA-256 was committed"


class AnchorZeroAddress(AnchorRefused):
    reason = "anchor: zero address"
    way_out = "give the address of an account"


class LockerRefused(Reverted):
    """NodeRegistryLocker refused."""


class BelowMinimumStake(LockerRefused):
    reason = "locker: below minimum stake"
    way_out = "stake at least 50,000 PRLX"


class NotDeployer(LockerRefused):
    reason = "locker: caller is not the deployer"
    way_out = "send it from the account that deployed the locker"


class NotNodeOwner(LockerRefused):
    reason = "locker: caller is not the owner of the node"
    way_out = "send it from the account that staked for the node"


class CooldownNotOver(LockerRefused):
    reason = "locker: cooldown is not over"
    way_out = "wait until withdrawableAt, seven days after the request"


class NoSuchNode(LockerRefused):
    reason = "locker: no such node"
    way_out = "give an id from 1 to nodeCount()"


class NoLockerSurplus(LockerRefused):
    reason = "locker: no surplus"
    way_out = "nothing is left to do: the locker holds only principal"


class NodeAlreadyRetired(LockerRefused):
    reason = "locker: node is already retired"
    way_out = "withdraw the stake when its cooldown is over"


class NodeNotCooling(LockerRefused):
    reason = "locker: node is not cooling down"
    way_out = "request the unstake first"


class NodeKeyEmpty(LockerRefused):
    reason = "locker: node key hash is empty"
    way_out = "give the hash of the node's public key"


class NodeKeyInUse(LockerRefused):
    reason = "locker: node key is in use"
    way_out = "give each node a key of its own"


class LockerNotExempt(LockerRefused):
    reason = "locker: not exempt from the transfer tax"
    way_out = "the token's owner must exempt the locker first"


class RewardsAlreadyBound(LockerRefused):
    reason = "locker: rewards already bound"
    way_out = "nothing is left to do: the rewards contract is named for good"


class RewardsServeAnother(LockerRefused):
    reason = "locker: rewards serve another locker"
    way_out = "name the rewards contract that was made for this locker"


class StakeAlreadyWithdrawn(LockerRefused):
    reason = "locker: stake was withdrawn"
    way_out = "nothing is left to do: the stake is with its owner"


class TierOutOfRange(LockerRefused):
    reason = "locker: tier is not 1 to 4"
    way_out = "give a hardware tier from 1 to 4"


class LockerTransferFailed(LockerRefused):
    reason = "locker: token transfer failed"
    way_out = "check balance and allowance, and that the token is PRLX"


class TooLittleGas(LockerRefused):
    reason = "locker: too little gas to tell the rewards"
    way_out = "send it with at least 600,000 gas"


class LockerZeroAddress(LockerRefused):
    reason = "locker: zero address"
    way_out = "give the address of an account"


class RewardsRefused(Reverted):
    """OperatorStakeRewardsV2 refused."""


class MultiplierOutOfRange(RewardsRefused):
    reason = "rewards: multiplier out of range"
    way_out = "give each tier 1 to 100 tenths"


class StaleWindowOutOfRange(RewardsRefused):
    reason = "rewards: stale window out of range"
    way_out = "give 1 to 86,400 seconds"


class BootstrapOutOfRange(RewardsRefused):
    reason = "rewards: bootstrap out of range"
    way_out = "give 1 wei to the whole supply, over at least a second"


class RewardsReceiveTax(RewardsRefused):
    reason = "rewards: would receive the transfer tax"
    way_out = "the token's tax recipient must be another account"


class NoSuchFunction(RewardsRefused):
    reason = "rewards: no such function"
    way_out = "call a function of the rewards contract, or send ETH for fees without data"


class StreamAlreadyBound(RewardsRefused):
    reason = "rewards: stream already bound"
    way_out = "nothing is left to do: the stream is named for good"


class StreamPaysAnother(RewardsRefused):
    reason = "rewards: stream pays somebody else"
    way_out = "make a stream to the rewards contract"


class StreamOfAnotherToken(RewardsRefused):
    reason = "rewards: stream is of another token"
    way_out = "make a stream of PRLX"


class StreamCancelable(RewardsRefused):
    reason = "rewards: stream is cancelable"
    way_out = "make a stream that cannot be cancelled"


class StreamOfAnotherAmount(RewardsRefused):
    reason = "rewards: stream is of another amount"
    way_out = "make a stream of exactly bootstrapAmount"


class StreamPaidElsewhere(RewardsRefused):
    reason = "rewards: stream was paid out elsewhere"
    way_out = "bind a stream of which nothing was paid yet"


class RewardsNotExempt(RewardsRefused):
    reason = "rewards: not exempt from the transfer tax"
    way_out = "the token's owner must exempt rewards and Lockup first"


class NotLivenessReporter(RewardsRefused):
    reason = "rewards: caller is not the liveness reporter"
    way_out = "send it from the liveness key"


class LivenessPaused(RewardsRefused):
    reason = "rewards: liveness is paused"
    way_out = "the owner must unpause first"


class BatchNotAnchored(RewardsRefused):
    reason = "rewards: batch is not anchored"
    way_out = "anchor the batch first, and give its own root"


class BatchOlderThanReported(RewardsRefused):
    reason = "rewards: batch is older than the last one reported"
    way_out = "name the newest anchored batch"


class NoSuchRewardsNode(RewardsRefused):
    reason = "rewards: no such node"
    way_out = "give an id from 1 to the locker's nodeCount()"


class TooManyVoidedSlots(RewardsRefused):
    reason = "rewards: too many voided slots"
    way_out = "void at most 8,640 slots, a day, in one report"


class NotLocker(RewardsRefused):
    reason = "rewards: caller is not the locker"
    way_out = "only the locker tells that a node retired"


class NothingEarned(RewardsRefused):
    reason = "rewards: nothing earned"
    way_out = "claim when earned() is above 0"


class NotRewardsGuardian(RewardsRefused):
    reason = "rewards: caller is not the guardian"
    way_out = "send it from the guardian or the owner"


class RewardsNotPaused(RewardsRefused):
    reason = "rewards: not paused"
    way_out = "nothing is left to do"


class RewardsAlreadyPaused(RewardsRefused):
    reason = "rewards: already paused"
    way_out = "nothing is left to do"


class RewardsZeroAddress(RewardsRefused):
    reason = "rewards: zero address"
    way_out = "give the address of an account"


class VaultRefused(Reverted):
    """CreditVault refused."""


class DelayOutOfRange(VaultRefused):
    reason = "vault: withdrawal delay out of range"
    way_out = "give 1 to 86,400 seconds"


class VaultZeroAddress(VaultRefused):
    reason = "vault: zero address"
    way_out = "give the address of an account"


class VaultPaysItself(VaultRefused):
    reason = "vault: would pay itself"
    way_out = "give rewards, treasury and infrastructure accounts of their own"


class DailyLimitOutOfRange(VaultRefused):
    reason = "vault: daily limit out of range"
    way_out = "give at most the whole supply, 100,000,000 PRLX"


class AmountIsZero(VaultRefused):
    reason = "vault: amount is zero"
    way_out = "give an amount above 0"


class DepositsPaused(VaultRefused):
    reason = "vault: deposits are paused"
    way_out = "wait until the owner unpauses; withdrawals go on"


class VaultNotExempt(VaultRefused):
    reason = "vault: not exempt from the transfer tax"
    way_out = "the token's owner must exempt the vault first"


class ClearanceExpired(VaultRefused):
    reason = "vault: clearance has expired"
    way_out = "ask for a new clearance"


class ClearanceNonceNotNext(VaultRefused):
    reason = "vault: clearance nonce is not the next"
    way_out = "ask for a clearance with the nonce nonces(account)"


class ClearanceNotFromSettler(VaultRefused):
    reason = "vault: clearance is not from the settler"
    way_out = "use the account, amount, vault and chain it was signed for"


class ClearanceExceedsDeposit(VaultRefused):
    reason = "vault: clearance exceeds the deposit"
    way_out = "withdraw less: what was spent is settled first"


class NoWithdrawalRequested(VaultRefused):
    reason = "vault: no withdrawal was requested"
    way_out = "request one first"


class DelayNotOver(VaultRefused):
    reason = "vault: withdrawal delay is not over"
    way_out = "wait until availableAt"


class NothingLeft(VaultRefused):
    reason = "vault: nothing left to withdraw"
    way_out = "spending took the whole deposit meanwhile"


class VaultTransferFailed(VaultRefused):
    reason = "vault: token transfer failed"
    way_out = "check balance and allowance, and that the token is PRLX"


class NotSettler(VaultRefused):
    reason = "vault: caller is not the settler"
    way_out = "send it from the settler's key"


class SettlementPaused(VaultRefused):
    reason = "vault: settlement is paused"
    way_out = "the owner must unpause first"


class NotVaultGuardian(VaultRefused):
    reason = "vault: caller is not the guardian"
    way_out = "send it from the guardian or the owner"


class VaultNotPaused(VaultRefused):
    reason = "vault: not paused"
    way_out = "nothing is left to do"


class VaultAlreadyPaused(VaultRefused):
    reason = "vault: already paused"
    way_out = "nothing is left to do"


class NoVaultSurplus(VaultRefused):
    reason = "vault: no surplus"
    way_out = "nothing is left to do: the vault holds only deposits"
