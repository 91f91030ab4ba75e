"""The daily table of rewards on a terminal, with what its words mean below it."""

from __future__ import annotations

from itertools import groupby

from parallelix.chain.rewards_table import Paid, RewardsTable, Row, Sum, moment
from parallelix.terminal import Console

LABEL_COLUMNS = 12
WEI = 10**18
HEADS = ("node", "online", "paid", "weight", "share", "earned", "claimed", "unclaimed")
WORDS = (
    ("online", "how long the contract counted the node as online"),
    ("paid", "the part of it in which reports were fresh: only that is paid"),
    ("weight", "stake × tier multiplier, in PRLX"),
    ("share", "its part of all weight that was paid on that day, over time"),
    ("earned", "weight × what the contract's index grew meanwhile, in PRLX"),
    ("claimed", "what was paid out to the owner"),
    ("unclaimed", "what `earned` says at the end of the day: a claim pays it"),
    ("lag", "the longest time that a change had to wait for its report"),
)


def show(console: Console, table: RewardsTable) -> None:
    if not table.totals and not table.days:
        console.heading(f"rewards on chain {table.chain_id}: the contract has paid nobody yet")
        return
    console.heading(f"rewards on chain {table.chain_id}, as of block {table.block}, {moment(table.time)}")
    rows = {day: list(found) for day, found in groupby(sorted(table.rows, key=_place), key=lambda row: row.day)}
    if not table.days:
        console.note("nothing was paid on that day")
    for paid in table.days:
        _show_day(console, paid, rows.get(paid.day, []))
    _show_totals(console, table.totals)
    if table.rows:
        console.heading("what the words mean (docs/rewards.md has all of it)")
        for word, meaning in WORDS:
            console.fact(word, meaning, label_columns=LABEL_COLUMNS)


def prlx(wei: str) -> str:
    """To four places, rounded down, so that a row fits 80 columns; --json has every wei."""
    whole, part = divmod(int(wei), WEI)
    return f"{whole:,}.{part // 10**14:04d}"


def span(seconds: int) -> str:
    """`23:59`, hours first, rounded down."""
    return f"{seconds // 3600}:{seconds // 60 % 60:02d}"


def _place(row: Row) -> tuple[str, int]:
    return row.day, int(row.node_id)


def _show_day(console: Console, paid: Paid, rows: list[Row]) -> None:
    together = str(int(paid.bootstrap_wei) + int(paid.income_wei))
    console.heading(f"{paid.day} · {prlx(together)} PRLX in {span(paid.paid_seconds)}")
    console.fact("bootstrap", f"{prlx(paid.bootstrap_wei)} PRLX", label_columns=LABEL_COLUMNS)
    console.fact("income", f"{prlx(paid.income_wei)} PRLX", label_columns=LABEL_COLUMNS)
    console.fact("reports", f"{paid.reports}, lag {span(paid.lag_seconds)}", label_columns=LABEL_COLUMNS)
    lines = [HEADS, *(_cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADS))]
    for line in lines if rows else ():
        console.plain("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)))


def _cells(row: Row) -> tuple[str, ...]:
    weight = f"{int(row.weight) // (10 * WEI):,}"
    return (
        row.node_id,
        span(row.online_seconds),
        span(row.paid_seconds),
        weight,
        f"{row.share_percent[:-2]} %",
        prlx(row.earned_wei),
        prlx(row.claimed_wei),
        prlx(row.unclaimed_wei),
    )


def _show_totals(console: Console, totals: tuple[Sum, ...]) -> None:
    console.heading("since the beginning")
    if not totals:
        console.note("this node was never reported online; `parallelix wallet earned NODE` says whether there is one")
    for each in totals:
        line = (
            f"earned {prlx(each.earned_wei)} PRLX · claimed {prlx(each.claimed_wei)} · "
            f"unclaimed {prlx(each.unclaimed_wei)}{'' if each.earning else ' · earns nothing now'}"
        )
        label = f"node {each.node_id}"
        if each.on_chain_wei is None:
            console.fact(label, line, label_columns=LABEL_COLUMNS)
        elif each.on_chain_wei == each.unclaimed_wei:
            console.marked("✓", label, f"{line}; so says the contract", label_columns=LABEL_COLUMNS)
        else:
            says = f"{line} ({each.unclaimed_wei} wei); the contract says {each.on_chain_wei} wei"
            console.marked("✗", label, says, label_columns=LABEL_COLUMNS)
