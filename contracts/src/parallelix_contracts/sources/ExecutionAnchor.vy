# pragma version 0.4.3
# pragma nonreentrancy on
# SPDX-License-Identifier: AGPL-3.0-only
"""
@title ExecutionAnchor, which holds the chain of execution records to what it once was
@custom:contract-name ExecutionAnchor
@license GNU Affero General Public License v3.0 only
@notice The validator anchors batches of records, each bound to the one before, and commits beforehand to the secrets that
        decide which executions are audited. Anybody can prove that a record was anchored.
@dev Rules:
     - batches are numbered 1, 2, ... and only ever added; batch 0 is the tree of no records;
     - a batch names the head it continues, so the chain of records cannot fork, and records are numbered from 0 without a gap;
     - secrets are committed and revealed in the order of their epochs, and none before its successor is committed;
     - a batch of epoch e is refused until all epochs up to e - 2 are revealed, so audits of the past can be checked before
       more is anchored. The price: a validator who loses the secret of e can anchor no batch beyond epoch e + 1, and the
       network stays in that epoch for good.
     The contract holds no tokens and calls nothing but the SHA-256 precompile.
"""

from snekmate.auth import ownable
from snekmate.auth import ownable_2step

initializes: ownable
initializes: ownable_2step[ownable := ownable]

# Left out: renounce_ownership, because a slip would leave the network without anybody to name its next validator.
exports: (
    ownable_2step.accept_ownership,
    ownable_2step.owner,
    ownable_2step.pending_owner,
    ownable_2step.transfer_ownership,
)


# @dev Records `first` to `last` are anchored; `headHash` is the hash of record `last`.
event BatchAnchored:
    number: indexed(uint256)
    previousHash: bytes32
    headHash: indexed(bytes32)
    first: uint64
    last: uint64
    count: uint64
    merkleRoot: bytes32
    epoch: uint64


event SamplingCommitted:
    epoch: indexed(uint64)
    commitment: bytes32


event SamplingRevealed:
    epoch: indexed(uint64)
    secret: bytes32


event ValidatorChanged:
    previous: indexed(address)
    current: indexed(address)


# @dev What each batch moves on, in one storage slot: 64 bits each for `newestEpoch` and `batchCount`, 128 for `nextSequence`,
# which can be 2^64 when the last of all numbers is taken. `batchCount` cannot reach 2^64: nobody can pay for so many.
struct Progress:
    nextSequence: uint256
    batchCount: uint256
    newestEpoch: uint256


# @dev At 1,000 records a second, those of seven weeks. Without a bound one false batch of a stolen key could use up all the
# numbers there are, and nothing could ever be anchored again.
RECORDS_MAX: constant(uint64) = 2**32

# @dev The siblings from a leaf of the largest tree, of 2^64 - 1 records, to its root.
PROOF_HASHES_MAX: constant(uint256) = 64

# @dev Leaves and nodes are hashed apart, so that no node can be shown as a leaf.
LEAF_PREFIX: constant(bytes1) = 0x00
NODE_PREFIX: constant(bytes1) = 0x01

# @dev Who anchors batches, and commits to secrets and reveals them.
validator: public(address)

# @dev The hash of the newest anchored record; empty before the first.
head: public(bytes32)

roots: HashMap[uint256, bytes32]

# @dev How many epochs have a commitment, and how many a revealed secret: always those from 0 on.
committedEpochs: public(uint64)
revealedEpochs: public(uint64)

commitments: HashMap[uint64, bytes32]
secrets: HashMap[uint64, bytes32]
packed_progress: uint256


@deploy
def __init__(validator: address):
    """
    @notice Anchors batch 0, the tree of no records. The deployer owns the contract.
    @param validator Who anchors batches and commits to sampling secrets.
    """
    assert validator != empty(address), "anchor: zero address"

    ownable.__init__()
    ownable_2step.__init__()

    self._change_validator(validator)
    self.roots[0] = sha256(b"")
    self._store_progress(Progress(nextSequence=0, batchCount=1, newestEpoch=0))


# --- views ---


@external
@view
def batchCount() -> uint256:
    """
    @notice How many batches there are, batch 0 among them: also the number of the next.
    """
    return self._progress().batchCount


@external
@view
def nextSequence() -> uint256:
    """
    @notice The number of the first record that is not anchored, which is how many are.
    """
    return self._progress().nextSequence


@external
@view
def newestEpoch() -> uint256:
    """
    @notice The epoch of the newest batch; 0 before the first.
    """
    return self._progress().newestEpoch


@external
@view
def rootOf(number: uint256) -> bytes32:
    """
    @notice The Merkle root of a batch; empty where there is none.
    @param number The number of the batch.
    """
    return self.roots[number]


@external
@view
def commitmentOf(epoch: uint64) -> bytes32:
    """
    @notice SHA-256 of the sampling secret of an epoch; empty until it is committed.
    @param epoch Epochs count from 0.
    """
    return self.commitments[epoch]


@external
@view
def secretOf(epoch: uint64) -> bytes32:
    """
    @notice The sampling secret of an epoch; empty until it is revealed.
    @param epoch Epochs count from 0.
    """
    return self.secrets[epoch]


@external
@view
def holds(number: uint256, merkleRoot: bytes32) -> bool:
    """
    @notice Whether batch `number` is anchored, with this root.
    @param number The number of the batch.
    @param merkleRoot The root it is said to have.
    @return bool False also where there is no such batch, whatever the root.
    """
    return merkleRoot != empty(bytes32) and self.roots[number] == merkleRoot


@external
@view
def verify(
    number: uint256, recordHash: bytes32, index: uint64, count: uint64, proof: DynArray[bytes32, PROOF_HASHES_MAX]
) -> bool:
    """
    @notice Whether a record is in a batch: the tree is RFC 6962's over SHA-256.
    @dev A root does not commit to its count, so `count` is the prover's claim. That the record is a leaf holds whatever it
         says; where the record stands is for the record itself to state.
    @param number The number of the batch.
    @param recordHash SHA-256 of the record.
    @param index Which leaf of the tree the record is, from 0.
    @param count How many leaves the tree has.
    @param proof The siblings from the leaf to the root, lowest first.
    @return bool False where the proof has the right length and leads to another root.
    """
    batch_root: bytes32 = self.roots[number]
    assert batch_root != empty(bytes32), "anchor: no such batch"
    return self._root_from_proof(recordHash, convert(index, uint256), convert(count, uint256), proof) == batch_root


# --- the validator ---


@external
def anchorBatch(
    previousHash: bytes32,
    headHash: bytes32,
    first: uint64,
    last: uint64,
    merkleRoot: bytes32,
    count: uint64,
    epoch: uint64,
) -> uint256:
    """
    @notice Anchors the records `first` to `last`. Costs the same however many they are.
    @param previousHash The head that the batch continues: the hash of record `first` - 1, empty for record 0.
    @param headHash The hash of record `last`: the new head.
    @param first The number of the first record of the batch.
    @param last The number of its last record.
    @param merkleRoot The root over the hashes of its records.
    @param count How many records it has; at most 2^32.
    @param epoch The newest sampling epoch that a record of the batch was drawn in.
    @return uint256 The number of the batch.
    """
    self._check_validator()
    progress: Progress = self._progress()
    assert previousHash == self.head, "anchor: previous hash is not the head"
    assert count != 0, "anchor: empty batch"
    assert last >= first and last - first == count - 1, "anchor: count does not match first and last"
    assert count <= RECORDS_MAX, "anchor: too many records"
    assert convert(first, uint256) == progress.nextSequence, "anchor: first is not the next record"
    assert headHash != empty(bytes32), "anchor: head hash is empty"
    assert merkleRoot != empty(bytes32), "anchor: merkle root is empty"
    assert convert(epoch, uint256) >= progress.newestEpoch, "anchor: epoch goes backwards"
    assert epoch < self.committedEpochs, "anchor: epoch is not committed"
    assert epoch < 2 or epoch - 2 < self.revealedEpochs, "anchor: epoch before last is not revealed"

    self._anchor_batch(progress.batchCount, previousHash, headHash, first, last, merkleRoot, count, epoch)
    return progress.batchCount


@external
def commitSampling(epoch: uint64, commitment: bytes32):
    """
    @notice Binds the validator to the sampling secret of an epoch that has not begun.
    @param epoch The first epoch without a commitment: they come in the order 0, 1, 2, ...
    @param commitment SHA-256 of the secret's 32 bytes.
    """
    self._check_validator()
    assert epoch == self.committedEpochs, "anchor: epoch is not the next"
    assert commitment != empty(bytes32), "anchor: commitment is empty"
    self._commit_sampling(epoch, commitment)


@external
def revealSampling(epoch: uint64, secret: bytes32):
    """
    @notice Shows the sampling secret of an epoch, so that anybody can recompute which executions were drawn. To be called
            when the epoch is over: whoever has the secret knows which executions of it are audited.
    @dev The newest secret is never shown, not even by a slip.
    @param epoch The first epoch whose secret was not revealed.
    @param secret The 32 bytes whose SHA-256 was committed.
    """
    self._check_validator()
    assert epoch < self.committedEpochs, "anchor: epoch is not committed"
    assert epoch >= self.revealedEpochs, "anchor: already revealed"
    assert epoch == self.revealedEpochs, "anchor: epoch is not the next"
    assert epoch + 1 < self.committedEpochs, "anchor: epoch has no successor yet"
    assert sha256(secret) == self.commitments[epoch], "anchor: secret does not match"
    self._reveal_sampling(epoch, secret)


# --- the owner ---


@external
def setValidator(validator: address):
    """
    @notice Names another validator, at once; the one before can do nothing from then on.
    @param validator Who anchors batches and commits to sampling secrets.
    """
    ownable._check_owner()
    assert validator != empty(address), "anchor: zero address"
    self._change_validator(validator)


# --- internal ---


@internal
@view
def _check_validator():
    assert msg.sender == self.validator, "anchor: caller is not the validator"


@internal
def _change_validator(validator: address):
    previous: address = self.validator
    self.validator = validator
    log ValidatorChanged(previous=previous, current=validator)


@internal
def _anchor_batch(
    number: uint256,
    previous_hash: bytes32,
    head_hash: bytes32,
    first: uint64,
    last: uint64,
    merkle_root: bytes32,
    count: uint64,
    epoch: uint64,
):
    self.head = head_hash
    self.roots[number] = merkle_root
    self._store_progress(
        Progress(
            nextSequence=convert(last, uint256) + 1,
            batchCount=number + 1,
            newestEpoch=convert(epoch, uint256),
        )
    )
    log BatchAnchored(
        number=number,
        previousHash=previous_hash,
        headHash=head_hash,
        first=first,
        last=last,
        count=count,
        merkleRoot=merkle_root,
        epoch=epoch,
    )


@internal
def _commit_sampling(epoch: uint64, commitment: bytes32):
    self.commitments[epoch] = commitment
    self.committedEpochs = epoch + 1
    log SamplingCommitted(epoch=epoch, commitment=commitment)


@internal
def _reveal_sampling(epoch: uint64, secret: bytes32):
    self.secrets[epoch] = secret
    self.revealedEpochs = epoch + 1
    log SamplingRevealed(epoch=epoch, secret=secret)


@internal
@view
def _progress() -> Progress:
    packed: uint256 = self.packed_progress
    return Progress(
        nextSequence=packed >> 128,
        batchCount=(packed >> 64) & convert(max_value(uint64), uint256),
        newestEpoch=packed & convert(max_value(uint64), uint256),
    )


@internal
def _store_progress(progress: Progress):
    self.packed_progress = (progress.nextSequence << 128) | (progress.batchCount << 64) | progress.newestEpoch


@internal
@pure
def _root_from_proof(
    record_hash: bytes32, index: uint256, count: uint256, proof: DynArray[bytes32, PROOF_HASHES_MAX]
) -> bytes32:
    """
    @dev Walks up one level at a time; a lone last node of a level has no sibling and is carried up as it is. 64 levels
         suffice: `count` is below 2^64.
    """
    assert index < count, "anchor: index outside the tree"
    current: bytes32 = sha256(concat(LEAF_PREFIX, record_hash))
    position: uint256 = index
    width: uint256 = count
    used: uint256 = 0
    for level: uint256 in range(PROOF_HASHES_MAX):
        if width == 1:
            break
        if position % 2 == 1 or position + 1 < width:
            assert used < len(proof), "anchor: proof is too short"
            current = self._node_hash(position % 2 == 1, current, proof[used])
            used += 1
        position //= 2
        width = (width + 1) // 2
    assert used == len(proof), "anchor: proof is too long"
    return current


@internal
@pure
def _node_hash(is_right: bool, current: bytes32, sibling: bytes32) -> bytes32:
    if is_right:
        return sha256(concat(NODE_PREFIX, sibling, current))
    return sha256(concat(NODE_PREFIX, current, sibling))
