"""Named SQL. `:name` is a parameter; `{columns}` is filled with the columns of the row that is read."""

from __future__ import annotations

from parallelix.coordinator.store.schema import OPEN, OPEN_AUDIT

# One key, one row.
REQUEST = "SELECT {columns} FROM requests WHERE request_id = :request_id"
PAYLOAD = "SELECT {columns} FROM payloads WHERE request_id = :request_id"
ENVELOPE = "SELECT {columns} FROM envelopes WHERE attempt_id = :attempt_id"
RESULT = "SELECT {columns} FROM results WHERE request_id = :request_id"
COMMAND = "SELECT {columns} FROM commands WHERE command_id = :command_id"
BATCH = "SELECT {columns} FROM batches WHERE number = :number"
RECORD_BY_HASH = "SELECT {columns} FROM records WHERE record_hash = :record_hash"
CLAIM = "SELECT {columns} FROM claims WHERE audit_id = :audit_id"
LEADER = "SELECT {columns} FROM leader WHERE id = 1"

# The request names its record, so that the chain needs no index by request.
RECORD_OF_REQUEST = """
SELECT {columns} FROM records
WHERE sequence = (SELECT record_sequence FROM requests WHERE request_id = :request_id) AND request_id = :request_id
"""

# An empty batch repeats the `last` of the one before it, and comes after it.
BATCH_OF = """
SELECT {columns} FROM (SELECT * FROM batches WHERE last >= :sequence ORDER BY last, number LIMIT 1) AS nearest
WHERE first <= :sequence
"""

# Lists, a page at a time.
ATTEMPTS_OF = "SELECT {columns} FROM attempts WHERE request_id = :request_id ORDER BY number"
REQUESTS_OF = """
SELECT {columns} FROM requests
WHERE account = :account AND (admitted_at, request_id) < (:before_at, :before_id)
ORDER BY admitted_at DESC, request_id DESC LIMIT :limit
"""
REQUESTS_OF_IN_STATE = """
SELECT {columns} FROM requests
WHERE account = :account AND state = :state AND (admitted_at, request_id) < (:before_at, :before_id)
ORDER BY admitted_at DESC, request_id DESC LIMIT :limit
"""
RECORDS_RANGE = """
SELECT {columns} FROM records WHERE sequence BETWEEN :first AND :last ORDER BY sequence LIMIT :limit
"""
AUDIT_OF_REQUEST = "SELECT {columns} FROM audits WHERE request_id = :request_id AND prepared_from = ''"
EPOCHS_FROM = "SELECT {columns} FROM epochs WHERE epoch >= :first ORDER BY epoch LIMIT :limit"
TRANSFERS_AFTER = """
SELECT {columns} FROM transfers WHERE transfer_id > :after ORDER BY transfer_id LIMIT :limit
"""
TRANSFER = "SELECT {columns} FROM transfers WHERE transfer_id = :transfer_id"
PENDING_COMMANDS = """
SELECT {columns} FROM commands WHERE applied_at = 0 ORDER BY created_at, command_id LIMIT :limit
"""

# What is over. A payload outlives its request only when a crash came between the two.
EXPIRED_RESULTS = "SELECT request_id FROM results WHERE expires_at <= :now ORDER BY expires_at LIMIT :limit"
EXPIRED_PAYLOADS = "SELECT request_id FROM payloads WHERE created_at <= :before ORDER BY created_at LIMIT :limit"
EXPIRED_ENVELOPES = """
SELECT attempts.attempt_id FROM attempts JOIN envelopes ON envelopes.attempt_id = attempts.attempt_id
WHERE attempts.request_id IN (
    SELECT request_id FROM payloads WHERE created_at <= :before ORDER BY created_at LIMIT :limit
)
"""
# An answer has been read by then, and need not be kept.
EXPIRED_COMMANDS = "SELECT command_id FROM commands WHERE applied_at BETWEEN 1 AND :before LIMIT :limit"
EXPIRED_INTENTS = """
SELECT intent_id FROM intents WHERE state IN ('final', 'dead') AND created_at <= :before LIMIT :limit
"""

# What a restart needs. A charge posts when a confirmed batch covers the record, and batches are confirmed in order; for
# a request that is audited not before the verdict.
_CONFIRMED_THROUGH = "(SELECT coalesce(max(last), -1) FROM batches WHERE confirmed_at > 0)"
_LIVE = f"""
    SELECT request_id FROM requests WHERE {OPEN}
    UNION SELECT records.request_id FROM records JOIN requests
        ON requests.request_id = records.request_id AND requests.record_sequence = records.sequence
        WHERE records.sequence > {_CONFIRMED_THROUGH}
    UNION SELECT request_id FROM audits WHERE {OPEN_AUDIT}
"""
LIVE_REQUESTS = f"SELECT {{columns}} FROM requests WHERE request_id IN ({_LIVE}) ORDER BY admitted_at, request_id"
LIVE_ATTEMPTS = f"SELECT {{columns}} FROM attempts WHERE request_id IN ({_LIVE}) ORDER BY request_id, number"
NODES = "SELECT {columns} FROM nodes"
BALANCES = "SELECT {columns} FROM balances"
KEYS = "SELECT {columns} FROM api_keys"
FAULTS_SINCE = "SELECT {columns} FROM faults WHERE at >= :since ORDER BY at, attempt_id"
LIVE_BATCHES = """
SELECT {columns} FROM batches
WHERE confirmed_at = 0
    OR number = (SELECT max(number) FROM batches)
    OR number = (SELECT max(number) FROM batches WHERE confirmed_at > 0)
ORDER BY number
"""
UNBATCHED_RECORDS = """
SELECT {columns} FROM records WHERE sequence > (SELECT coalesce(max(last), -1) FROM batches) ORDER BY sequence
"""
HEAD_RECORD = "SELECT {columns} FROM records ORDER BY sequence DESC LIMIT 1"
IDEMPOTENT_SINCE = """
SELECT {columns} FROM requests WHERE idempotency_key <> '' AND admitted_at >= :since
ORDER BY admitted_at, request_id
"""
UPTIME_SINCE = "SELECT {columns} FROM uptime WHERE hour >= :hour ORDER BY hour, node_id"
CHAIN_CURSOR = "SELECT {columns} FROM chain_cursor"
VAULT_ACCOUNTS = "SELECT {columns} FROM vault_accounts"
OPEN_CLEARANCES = "SELECT {columns} FROM clearances WHERE state = 'open'"
REGISTRATIONS = "SELECT {columns} FROM registrations"
NODE_LIVENESS = "SELECT {columns} FROM node_liveness"
OPEN_AUDITS = f"SELECT {{columns}} FROM audits WHERE {OPEN_AUDIT} ORDER BY opened_at, execution_sequence, audit_id"
NODE_TRUST = "SELECT {columns} FROM node_trust"
UNREVEALED_EPOCHS = """
SELECT {columns} FROM epochs WHERE revealed_at = 0 OR epoch = (SELECT max(epoch) FROM epochs) ORDER BY epoch
"""
INTENT = "SELECT {columns} FROM intents WHERE intent_id = :intent_id"
OPEN_INTENTS = "SELECT {columns} FROM intents WHERE state IN ('new', 'signed', 'mined') ORDER BY created_at, intent_id"

# Leadership. A commit that finds another epoch writes nothing.
FIRST_LEADER = "INSERT INTO leader (id, epoch, commit_number, instance) VALUES (1, 0, 0, '') ON CONFLICT DO NOTHING"
TAKE_LEAD = "UPDATE leader SET epoch = epoch + 1, instance = :instance WHERE id = 1"
STILL_LEADING = "UPDATE leader SET commit_number = :commit_number WHERE id = 1 AND epoch = :epoch"
