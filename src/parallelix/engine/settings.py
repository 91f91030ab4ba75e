"""Every time and bound of the engine, each with its reason. Milliseconds and counts."""

from __future__ import annotations

from dataclasses import dataclass

SECOND_MS = 1_000
MINUTE_MS = 60 * SECOND_MS
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    chain_id: int

    on_chain: bool = False
    """Whether nodes, deposits, batches and liveness come from contracts."""
    first_batch: int = 0
    """1 on a chain, whose anchor begins with an empty batch 0."""
    default_daily_limit_wei: int = 10_000 * 10**18
    """The vault's own, for accounts that set none."""
    clearance_ms: int = 15 * MINUTE_MS
    """Time to send a withdrawal and have it mined on a busy chain; its amount is frozen for as long."""
    chain_stale_ms: int = 5 * MINUTE_MS
    """Two dozen blocks of a public chain. Who has not heard of the chain for so long does not let deposits be spent."""

    # A deadline bounds one attempt, from decrypt; waiting for a node has a bound of its own.
    deadline_ms_default: int = 120 * SECOND_MS
    deadline_ms_max: int = HOUR_MS
    lifetime_ms: int = 12 * HOUR_MS
    """A request is over after this, whatever happened to it."""

    acknowledge_ms: int = 10 * SECOND_MS
    """An offer that is not acknowledged goes elsewhere: two round trips and one slow disk, not a model load."""
    offline_ms: int = 30 * SECOND_MS
    """Three heartbeats missed."""
    heartbeat_ms: int = 10 * SECOND_MS
    cancel_grace_ms: int = 10 * SECOND_MS
    """How long a node may take to return a partial result after a cancel."""
    orphan_ms: int = 60 * SECOND_MS
    """How long a request whose waiting client was lost in a crash of ours is kept for it to come back."""
    restart_grace_ms: int = 30 * SECOND_MS
    """After a restart every attempt has at least this long: its node could not reach us meanwhile."""

    # Attempts.
    attempts_max: int = 3
    """Rejected, declined, failed and late attempts together; then the request fails with the last reason."""
    redispatches_after_deadline_max: int = 1
    attempts_hard_max: int = 10
    """Also counts attempts lost through no fault of the unit (node gone, offer not taken)."""

    # Standing of nodes.
    rejections_to_remove: int = 3
    rejection_window_ms: int = DAY_MS
    removal_ms: int = DAY_MS

    # Liveness, in ten-second slots. A node that comes or goes is reported after as many; what is one heartbeat lost on
    # the way is no transition, and each costs gas.
    online_after_slots: int = 3
    offline_after_slots: int = 3

    # Speed.
    speed_lifetime_ms: int = 10 * MINUTE_MS
    """For so long after its last measurement a node's speed is believed. Without an end, a node that was once too slow
    for a kind of work would never be given the work that shows it has recovered."""

    # Audits. docs/audits.md says how the figures of evidence were chosen.
    audits: bool = True
    """Off: nothing is drawn, and records say rate 0."""
    sampling_floor_percent: int = 10
    """The rate that a node which passed long enough stays at: one of 100, 50, 20, 10, or anything below."""
    passes_per_rate: int = 10
    """Audits to pass for the next lower rate."""
    audit_queue_ms: int = 10 * MINUTE_MS
    """How long an audit waits for a second node, or a third; then its execution is recorded as unaudited."""
    auditor_wait_ms: int = 2 * MINUTE_MS
    """How long an audit waits for the node that was drawn for it while that is busy; then it draws again. Longer than
    most units run, so that being free is of little use to who wants to audit its friends."""
    audit_deadline_ms: int = 60 * SECOND_MS
    """A few short prefills, and perhaps a model to load."""
    audit_attempts_max: int = 6
    audits_open_max: int = 20_000
    """Near 30 KiB each with their claims in the shell; beyond it what is drawn is recorded as unaudited."""
    disagreement_millinats: int = 3_000
    """ln(p1/p0) of the test of executors, and of that of auditors. H0: of an honest node six audits in a thousand end
    against it, three times the worst allowed for. H1: 12 in a hundred, which is below what one cheat in five leaves."""
    agreement_millinats: int = 120
    """ln((1-p0)/(1-p1)): what an audit that was passed takes back; half of it where the draw was made
    above the floor. With one in 26 against it evidence stays level."""
    unusable_millinats: int = 2_520
    """The same of results in which nothing can be compared, and that come out otherwise when they are run again: two in
    a hundred against 25. At one in eleven evidence stays level."""
    usable_millinats: int = 252
    conviction_millinats: int = 18_120
    """Seven disagreements, with a couple of dozen passes between them; never six. Of a hundred million honest nodes one
    comes there within 10,000 requests; who cheats is sampled at 100 % from the first of them on."""
    prepared_percent: int = 5
    """Of the audits that agreed, how many are put to another auditor as one whose answer is known."""

    # Challenges.
    challenges: bool = True
    """Off: nobody has to prove anything, and nobody is benched."""
    proof_ms: int = 6 * HOUR_MS
    """For so long after a node met its tier's speed floor it need not show it again."""
    challenge_lead_ms: int = HOUR_MS
    """So long before that time is over an idle node is challenged, at a moment it cannot foresee."""
    challenge_retry_ms: int = 10 * MINUTE_MS
    """A node that failed is asked again after this at most."""
    challenge_again_ms: int = MINUTE_MS
    """One whose answer was too slow is asked once more within this: it may have had to load the model first."""
    challenge_tokens: int = 64
    strikes_to_bench: int = 3
    """Units running that a node did not acknowledge in time; then it is offline until it passes a challenge."""

    # Records.
    batch_ms: int = 600 * SECOND_MS
    batch_records_max: int = 4096
    """A proof of twelve hashes, and a batch that is rebuilt in milliseconds."""

    # Bounds on memory. Each open request costs near 2 KiB here and its payload in the store.
    open_requests_max: int = 100_000
    open_requests_per_account_max: int = 10_000
    unsettled_max: int = 500_000
    """Records whose batch is not confirmed yet, near 2 KiB each: an hour and more of work that no anchor took."""
    nodes_max: int = 200_000
    idempotency_keys_max: int = 200_000
    idempotency_ms: int = DAY_MS
    answers_remembered_max: int = 20_000
    """Answers to results, so that a node that did not hear ours gets the same one again."""
    timers_sweep_min: int = 10_000
    """Near a megabyte of timers, many for what is over by now; below it sweeping gives back less than it costs."""
    drain_scan_max: int = 4096
    """How many waiting requests one freed slot may look at, near a microsecond each, for one that its node can serve;
    a node that finds none is asked again at its next free slot."""

    # Queue order: virtual milliseconds added to the time of admission, smallest first. So an urgent request overtakes
    # every standard one of the last two minutes, and nothing waits for ever behind later arrivals.
    standard_age_ms: int = 120 * SECOND_MS
    expedited_age_ms: int = 60 * SECOND_MS
    complexity_age_ms_max: int = 30 * SECOND_MS
    """The most that size alone may delay; below the gap between priorities, so that these always come first."""
    complexity_tokens_per_ms: int = 1
