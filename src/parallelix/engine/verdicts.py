"""What follows from the answers to an audit: one table. Whatever is not in it cannot happen; asking for it raises.

first       the executor's result against the first auditor's answer
second      against another's, where the first found nothing that it could compare: that is one node's word
whole       the unit run again whole, where nothing in it could be compared; `unauditable` where nothing in the second
            run can be compared either, so that the request is like that and not its executor
third       against a third node's answer, and that against the first auditor's
prepared    a made-up claim against an auditor's answer, and that against the one that is known to be right
"""

from __future__ import annotations

from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol.records import Verdict
from parallelix.protocol.spot_check import BASE_TOKENS, RERUN_UNAUDITABLE, Finding, Outcome

Stage: TypeAlias = Literal["first", "second", "whole", "third", "prepared"]
Answered: TypeAlias = Literal["agree", "disagree", "unusable", "unauditable", "other_runtime"]
"""other_runtime: they count the prompt's tokens otherwise, and run models with what renders chats its own way: that may
be nobody's doing."""
Missing: TypeAlias = Literal["no_node", "no_answer"]
"""No node could be asked in time; or none of those that were asked has answered."""


class NoSuchCase(AssertionError):
    """Our bug: an answer that the table has nothing for."""


class Ends(msgspec.Struct, frozen=True, kw_only=True):
    """The audit is over. `reason` is a stable code; empty, it is that of the finding. The rest is what the audit says
    of each: `good` or `bad`, empty for nothing. `flagged`: two nodes differ and nobody can tell who is wrong."""

    verdict: Verdict
    reason: str = ""
    executor: Literal["", "good", "bad"] = ""
    auditor: Literal["", "good", "bad"] = ""
    comparable: Literal["", "good", "bad"] = ""
    flagged: bool = False


class AskSecond(msgspec.Struct, frozen=True):
    """Another node, of neither owner, is asked for the same."""


class AskThird(msgspec.Struct, frozen=True):
    """Another node, of neither owner, decides between the two."""


class RunWhole(msgspec.Struct, frozen=True):
    """The unit is run again whole; equal results acquit."""


Ruling: TypeAlias = Ends | AskSecond | AskThird | RunWhole

_AGREES = Ends(verdict="agree", executor="good", auditor="good", comparable="good")
_EQUAL = Ends(verdict="agree", executor="good", auditor="good")
_DIFFERS = Ends(verdict="inconclusive", reason="unauditable", comparable="bad")
UNAUDITABLE = Ends(verdict="inconclusive", reason="unauditable")
_OTHER_RUNTIME = Ends(verdict="inconclusive", reason="other_runtime")
_OVERRULED = Ends(verdict="agree", reason="auditor_overruled", executor="good", auditor="bad", comparable="good")
_OVERTURNED = Ends(verdict="disagree", executor="bad", auditor="good", comparable="good")


def _undecided(reason: str) -> Ends:
    return Ends(verdict="inconclusive", reason=reason, flagged=True)


TABLE: dict[tuple[Stage, Answered | Missing, Outcome | None], Ruling] = {
    ("first", "agree", None): _AGREES,
    ("first", "disagree", None): AskThird(),
    ("first", "unusable", None): AskSecond(),
    ("second", "agree", None): _AGREES,
    ("second", "disagree", None): AskThird(),
    ("second", "unusable", None): RunWhole(),
    ("second", "other_runtime", None): _OTHER_RUNTIME,
    ("second", "no_node", None): UNAUDITABLE,
    ("second", "no_answer", None): UNAUDITABLE,
    ("first", "other_runtime", None): _OTHER_RUNTIME,
    ("whole", "other_runtime", None): _OTHER_RUNTIME,
    ("first", "no_node", None): Ends(verdict="unaudited", reason="no_second_node"),
    ("first", "no_answer", None): Ends(verdict="unaudited", reason="no_answer"),
    ("whole", "agree", None): _EQUAL,
    ("whole", "disagree", None): AskThird(),
    ("whole", "unusable", None): _DIFFERS,
    ("whole", "unauditable", None): UNAUDITABLE,
    ("whole", "no_node", None): Ends(verdict="inconclusive", reason="no_second_node"),
    ("whole", "no_answer", None): Ends(verdict="inconclusive", reason="no_answer"),
    ("third", "agree", "disagree"): _OVERRULED,
    ("third", "agree", "unusable"): _OVERRULED,
    ("third", "disagree", "agree"): _OVERTURNED,
    ("third", "agree", "agree"): _undecided("both_upheld"),
    ("third", "disagree", "disagree"): _undecided("neither_upheld"),
    ("third", "disagree", "unusable"): _undecided("neither_upheld"),
    ("third", "unusable", "agree"): _undecided("third_unusable"),
    ("third", "unusable", "disagree"): _undecided("third_unusable"),
    ("third", "unusable", "unusable"): _undecided("third_unusable"),
    ("third", "no_node", None): _undecided("no_third_node"),
    ("third", "no_answer", None): _undecided("no_third_node"),
    # Whoever gives the known answer is right, whatever it makes of the claim.
    **{
        ("prepared", outcome, "agree"): Ends(verdict="agree", reason="prepared", auditor="good")
        for outcome in ("agree", "disagree", "unusable")
    },
    **{
        ("prepared", outcome, "disagree"): Ends(verdict="disagree", reason="prepared", auditor="bad")
        for outcome in ("agree", "disagree", "unusable")
    },
    **{
        ("prepared", outcome, "unusable"): Ends(verdict="inconclusive", reason="prepared")
        for outcome in ("agree", "disagree", "unusable")
    },
    ("prepared", "no_node", None): Ends(verdict="unaudited", reason="no_second_node"),
    ("prepared", "no_answer", None): Ends(verdict="unaudited", reason="no_answer"),
}


def rendered_otherwise(finding: Finding) -> bool:
    """Whether all that the two differ in is how many tokens the prompt has."""
    return finding.outcome == "disagree" and finding.reason == BASE_TOKENS


def answered(stage: Stage, finding: Finding, *, alike: bool) -> Answered:
    """What a finding is in the table. `alike`: the two nodes surely render a request alike."""
    if not alike and rendered_otherwise(finding):
        return "other_runtime" if stage in ("first", "second", "whole") else "unusable"
    return "unauditable" if stage == "whole" and finding.reason == RERUN_UNAUDITABLE else finding.outcome


def ruling(stage: Stage, outcome: Answered | Missing, third: Outcome | None = None) -> Ruling:
    """What an answer leads to. `third` is the third node's against the first auditor's, or a prepared audit's against
    what is known."""
    found = TABLE.get((stage, outcome, third))
    if found is None:
        raise NoSuchCase(f"an audit at stage {stage} cannot be answered {outcome} with {third}")
    return found
