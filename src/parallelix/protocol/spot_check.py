"""The spot check of an inference: what an executor said of its tokens, beside what an auditor predicts at a few places.

An auditor is sent the prompt and the beginning of the answer, never the executor's numbers, and returns the twenty most
likely next tokens. Rules that follow from what runtimes give and hide:

    positions   byte offsets of the text where an entry begins; the empty prefix is always one. None lies behind
                characters that were lost, and none is the last entry of a text that a stop sequence may have cut
    base        the auditor's count of prompt tokens at the empty prefix must be the executor's, where that was counted
    comparable  a position counts only where the auditor counts base + the output tokens before it: elsewhere the prefix
                was tokenised otherwise, and the numbers mean nothing. Entries that may stand for several tokens leave
                as much room as their bytes can hide
    end         a text that ended of itself is probed behind its last byte too: its end must have been likely
    verdict     distance at the usable positions, their mean and the largest, in favour of the executor where a list is
                silent; tokens and ends that sampling as asked could not have picked; and over the whole answer tokens
                too unlikely by the executor's own numbers

What cannot be compared is said to be `unusable` with a reason, and never counts as agreement.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise
from typing import Literal, TypeAlias

import msgspec

from parallelix.protocol.calibration import Card, peak_threshold, threshold
from parallelix.protocol.distributions import (
    GAP,
    LOGPROB_SLACK,
    TEMPERATURE_MIN,
    View,
    distance,
    is_among,
    is_telling,
    logprob_among,
    probability_of_misses,
    surprise,
    tail_share,
    uncertainty,
    view_of,
)
from parallelix.protocol.work import ENTRY_TOP, PROBES_MAX, Entry, FinishReason, Probes, WorkKind

RandomBytes: TypeAlias = Callable[[int], bytes]
PROBES_DEFAULT = 12
"""Positions besides the empty prefix and the end."""
ENDING_TOKENS_MAX = 3
STOP_TOKENS_MAX = 32
"""Tokens that neither an entry nor lost bytes explain: the end of the text, a character that was begun, and what a stop
sequence cut off. More were thoughts, and an auditor cannot be given them."""
CHANCE_MAX = 1e-5
"""How likely tokens must at least be, where an honest executor sampled them."""
AUDITOR_SLACK_NATS = 1.0
"""By how much more an auditor may find a token too unlikely to be picked: its numbers are not the executor's."""
MISJUDGED_SHARE = 1e-4
"""How often that is not enough: one such token convicts nobody, two do."""
UNPICKED_SHARE_MAX = 0.01
OUTLIERS_SHARE = 0.5
"""How far apart the rest may be, by the threshold, for single positions to count as outliers."""
JOIN_LOGPROB_MIN = math.log(0.3)
"""A token that goes on where the one before it stopped, within a word or a number, and was less likely than this may be
one that the model's own tokenizer would not have put there."""
DOUBTED_WEIGHT = 0.2
UNCERTAINTY_MIN = 0.02
"""What every position is worth at least where positions are drawn by their uncertainty."""
CHANCY_SHARE = 0.05
"""How likely the second run must find a beginning that cannot be probed either."""
FABRICATED_SHARE_MAX = 0.05
"""Runtimes make an odd entry now and then where they take an answer apart; more are made up."""


class Claim(msgspec.Struct, frozen=True, kw_only=True):
    """A verified result as its executor signed it, and what of the request decides how it is compared."""

    kind: WorkKind
    model_digest: str
    prompt_tokens: int
    """0 with a `finish_reason` of "length" or "cancelled": the runtime was stopped before it counted them."""
    completion_tokens: int
    text: str
    finish_reason: FinishReason
    entries: tuple[Entry, ...]
    embeddings: tuple[str, ...] = ()
    content: bytes = b""
    """The result's canonical bytes."""
    temperature: float
    """In effect: 0 is greedy."""
    min_p: float = 0.0
    """In effect: tokens below this share of the likeliest one's probability are never picked. 0 cuts nothing."""
    tokens_max: int = 0
    """How many were asked for; 0 where it is not known."""
    stops: bool = False
    """The request has stop sequences: one of them may have ended the text."""
    seeded: bool = False
    constrained: bool = False
    """A grammar, tools or penalties: what was picked need not be among the likely."""


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an auditor returned: one count and one entry for each position."""

    prompt_tokens: tuple[int, ...]
    entries: tuple[Entry, ...]


Outcome: TypeAlias = Literal["agree", "disagree", "unusable"]


BASE_TOKENS = "base_tokens"
"""The reason of a finding by which the two had different prompts before them. What follows from a finding depends on
this one and the next."""
RERUN_UNAUDITABLE = "rerun_unauditable"
"""The reason of a finding by which a second run cannot be compared either."""


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """What one comparison says. `reason` is a stable code (docs/audits.md); `detail` is for people, without any text of
    the request. `unusable` says that the numbers cannot be compared at all."""

    outcome: Outcome
    reason: str
    detail: str = ""
    distance: float = 0.0
    """Mean total variation over the usable positions, 0 to 1."""
    usable: int = 0
    unusable: int = 0


class _Place(msgspec.Struct, frozen=True):
    """An entry that an auditor can be asked about: its offset in UTF-8 bytes, the entries before it, and how many more
    tokens than entries the bytes before it can hide."""

    offset: int
    index: int
    room: int


def choose_probes(claim: Claim, random_bytes: RandomBytes, *, count: int = PROBES_DEFAULT) -> Probes | None:
    """The empty prefix and up to `count` unpredictable positions; None where not even that can be compared."""
    if claim.kind == "embedding" or _hidden_tokens(claim) > _unexplained_max(claim):
        return None
    places = [place for place in _places(claim) if _is_comparable(claim, place)]
    ends = [len(_bytes(claim.text))] if _shows_its_end(claim) else []
    if not places and not (ends and not claim.entries):
        return None
    firm = _firm_until(claim)
    later = {
        place.offset: uncertainty(claim.entries[place.index].top) * (1.0 if place.index <= firm else DOUBTED_WEIGHT)
        for place in places
        if place.offset > 0
    }
    chosen = sorted({0, *_drawn(later, min(count, PROBES_MAX - 2), random_bytes), *ends})
    return Probes(text=_bytes(claim.text)[: chosen[-1]].decode(), positions=tuple(chosen))


def compare(claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
    """An auditor's answer against the executor's claim. Never raises, whatever either of them holds."""
    if (fault := _malformed(probes, answer)) is not None:
        return fault
    total = len(probes.positions)
    if (fault := compare_base(claim, answer.prompt_tokens[0]) or _fabricated(claim)) is not None:
        return msgspec.structs.replace(fault, unusable=total)
    if (hidden := _hidden_tokens(claim)) > _unexplained_max(claim):
        detail = f"{hidden} tokens of the answer are in no entry, and {_unexplained_max(claim)} is the most"
        return Finding(outcome="unusable", reason="hidden_tokens", detail=detail, unusable=total)
    return _compared(claim, probes, answer, card)


def is_auditable(claim: Claim) -> bool:
    """Whether anything of it can be probed."""
    return choose_probes(claim, bytes, count=0) is not None


def is_chancy(claim: Claim, rerun: Claim) -> bool:
    """Whether it may be the request's doing that nothing of `claim` can be probed, though `rerun` can be: it was ended
    from outside, or its first character may as well be one that comes in pieces."""
    if claim.finish_reason == "cancelled" or (claim.stops and not claim.entries):
        return True
    if not claim.entries or _is_clear(claim.entries[0]):
        return False
    if not rerun.entries:
        return True
    in_pieces = (logprob for text, logprob in rerun.entries[0].top if GAP in text or not text)
    return math.fsum(map(math.exp, in_pieces)) ** (1.0 / max(1.0, claim.temperature)) >= CHANCY_SHARE


def compare_base(claim: Claim, counted: int) -> Finding | None:
    """A disagreement where the executor states another number of prompt tokens than an auditor counts."""
    if claim.prompt_tokens == counted or _base_is_unknown(claim):
        return None
    detail = f"{claim.prompt_tokens} prompt tokens were stated, and the auditor counts {counted}"
    return Finding(outcome="disagree", reason=BASE_TOKENS, detail=detail)


def compare_answers(first: Answer, second: Answer, probes: Probes, card: Card) -> Finding:
    """Two auditors' answers at the same positions against each other."""
    for answer in (first, second):
        if (fault := _malformed(probes, answer)) is not None:
            return fault
    total = len(probes.positions)
    if first.prompt_tokens[0] != second.prompt_tokens[0]:
        detail = f"they count {first.prompt_tokens[0]} and {second.prompt_tokens[0]} prompt tokens"
        return Finding(outcome="disagree", reason=BASE_TOKENS, detail=detail, unusable=total)
    pairs = [
        (one, other)
        for index in range(total)
        if first.prompt_tokens[index] == second.prompt_tokens[index]
        if (one := view_of(first.entries[index].top)) is not None
        if (other := view_of(second.entries[index].top)) is not None
    ]
    if not pairs:
        return Finding(outcome="unusable", reason="no_position", detail=f"none of {total}", unusable=total)
    apart = [distance(one, other) for one, other in pairs]
    return _in_figures(_by_distance(apart, card, resampled=False), apart, total - len(pairs))


class _Beside(msgspec.Struct):
    """What an auditor says beside what the executor said, where it can be compared."""

    views: list[tuple[View, View]] = []
    firm: int = 0
    """How many of these, from the first on, surely stand behind the very tokens that the executor had."""
    tokens: list[tuple[Entry, Entry]] = []
    """The executor's token and what was predicted in its place."""
    firm_tokens: int = 0
    end: Entry | None = None
    """What was predicted behind the text."""
    end_is_firm: bool = True
    why_not: Counter[str] = msgspec.field(default_factory=Counter[str])


def distances(claim: Claim, probes: Probes, answer: Answer) -> tuple[float, ...]:
    """The distance at each usable position: what a calibration card is made of."""
    if _malformed(probes, answer) is not None:
        return ()
    return tuple(distance(own, theirs) for own, theirs in _beside(claim, probes, answer).views)


def _beside(claim: Claim, probes: Probes, answer: Answer) -> _Beside:
    beside, firm = _Beside(), _firm_until(claim)
    places = {place.offset: place for place in _places(claim)}
    for offset, counted, predicted in zip(probes.positions, answer.prompt_tokens, answer.entries, strict=True):
        extra = counted - answer.prompt_tokens[0]
        place = places.get(offset)
        if place is None and _shows_its_end(claim) and offset == len(_bytes(claim.text)):
            counted_on = 0 <= extra - len(claim.entries) <= sum(map(_hideable, claim.entries))
            beside.end = predicted if counted_on and not beside.why_not["retokenised"] else None
            beside.end_is_firm = len(claim.entries) <= firm
            continue
        reason = "lost_text" if place is None else _why_not(claim, place, extra, predicted)
        if beside.why_not["retokenised"]:
            # What was read otherwise once stays in the context of all that follows.
            reason = "retokenised"
        if place is None or reason:
            beside.why_not[reason] += 1
            continue
        own, theirs = view_of(claim.entries[place.index].top, ENTRY_TOP), view_of(predicted.top)
        assert own is not None and theirs is not None
        beside.views.append((own, theirs))
        beside.firm += place.index <= firm
        if not _may_be_cut(claim, place.index):
            beside.tokens.append((claim.entries[place.index], predicted))
            beside.firm_tokens += place.index <= firm
    return beside


def _compared(claim: Claim, probes: Probes, answer: Answer, card: Card) -> Finding:
    beside = _beside(claim, probes, answer)
    apart = [distance(own, theirs) for own, theirs in beside.views]
    found = _found(claim, beside, apart, card)
    if found is None and not apart and (beside.end is None or claim.entries):
        reason = beside.why_not.most_common(1)[0][0] if beside.why_not else "no_prediction"
        found = Finding(outcome="unusable", reason=reason, detail=f"none of {beside.why_not.total()} positions")
    if found is None and _is_short(claim):
        detail = f"{claim.completion_tokens} tokens of {claim.tokens_max}, and cut for their length"
        found = Finding(outcome="unusable", reason="short", detail=detail)
    return _in_figures(found, apart, beside.why_not.total())


def _found(claim: Claim, beside: _Beside, apart: Sequence[float], card: Card) -> Finding | None:
    """What stands firm convicts; what does not can only leave it undecided."""
    resampled = claim.temperature >= TEMPERATURE_MIN
    firm = _by_distance(apart[: beside.firm], card, resampled=resampled)
    if firm is None and not claim.constrained:
        known = _known_entries(claim)
        firm = _by_rank(claim, beside.tokens[: beside.firm_tokens])
        firm = firm or _by_end(claim, beside.end if beside.end_is_firm else None)
        firm = firm or _by_picks(claim, known) or _by_likelihood(claim, known)
    if firm is not None:
        return firm
    doubted = _by_distance(apart, card, resampled=resampled)
    if doubted is None and not claim.constrained:
        doubted = _by_rank(claim, beside.tokens) or _by_end(claim, beside.end)
    if doubted is None:
        return None
    return Finding(outcome="unusable", reason="outliers", detail=f"{doubted.detail}; behind a doubtful token only")


def _firm_until(claim: Claim) -> int:
    """The last entry in front of which the text surely reads as the tokens that were written: each of those before it
    begins a word of its own, or was the one to expect."""
    before = ""
    for index, entry in enumerate(claim.entries):
        if not entry.text:
            continue
        if index == 0:
            # White space may join the end of a chat's template, and anything else the end of a plain prompt.
            doubted = entry.text[0].isspace() == (claim.kind == "chat")
        else:
            likely = entry.logprob is not None and entry.logprob >= JOIN_LOGPROB_MIN
            doubted = not likely and before != "" and not _is_apart(before, entry.text)
        if doubted:
            return index
        before = entry.text
    return len(claim.entries)


def _is_apart(before: str, text: str) -> bool:
    """Tokenizers join what follows within a word, a number or a run of signs, and white space with what it precedes."""
    return text[0].isspace() and not before[-1].isspace()


def _why_not(claim: Claim, place: _Place, extra: int, predicted: Entry) -> str:
    """Why a position cannot be compared, or nothing. `extra` tokens are between the empty prefix and the position."""
    entry = claim.entries[place.index]
    hidden = extra - place.index
    if not _is_clear(entry):
        return "lost_text"
    if not is_telling(entry.top):
        return "no_alternatives"
    if not 0 <= hidden <= place.room:
        return "retokenised"
    # What is hidden, and not before the position, has room behind it; else it stood before the text, as thoughts do.
    if _hidden_tokens(claim) + place.room - hidden > _unexplained_max(claim):
        return "hidden_tokens"
    return "" if is_telling(predicted.top) else "no_prediction"


def _by_distance(apart: Sequence[float], card: Card, *, resampled: bool) -> Finding | None:
    """`resampled`: tokens were drawn by chance, and now and then one that the model's own tokenizer would not have put
    there. If as many tokens come of it when the text is read again, the counts do not show it, and an honest node is
    far from an auditor at some of the positions behind it: where all the others agree well, nothing is decided."""
    if not apart:
        return None
    mean, most, peak = _mean(apart), threshold(card, len(apart)), peak_threshold(card)
    if mean > most:
        reason, detail = "distance", f"a distance of {mean:.3f} over {len(apart)} positions, at most {most:.3f}"
    elif max(apart) > peak:
        reason, detail = "peak", f"a distance of {max(apart):.3f} at one of {len(apart)} positions, at most {peak:.3f}"
    else:
        return None
    if resampled and len(apart) > 1 and _mean(_without_outliers(apart)) <= OUTLIERS_SHARE * most:
        return Finding(outcome="unusable", reason="outliers", detail=f"{detail}; the others agree")
    return Finding(outcome="disagree", reason=reason, detail=detail)


def _without_outliers(apart: Sequence[float]) -> list[float]:
    """Without the largest quarter. The first is never among them: in front of it there is nothing to read again."""
    left = len(apart) - 1 - math.ceil(len(apart) / 4)
    return [apart[0], *sorted(apart[1:])[: max(0, left)]]


def _in_figures(found: Finding | None, apart: Sequence[float], unusable: int) -> Finding:
    """What was found, or else that they agree, with how far they are apart."""
    finding = found or Finding(outcome="agree", reason="")
    return msgspec.structs.replace(finding, distance=_mean(apart), usable=len(apart), unusable=unusable)


def _bytes(text: str) -> bytes:
    """In UTF-8. What is no Unicode came in no message; it takes a byte."""
    return text.encode(errors="replace")


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / max(1, len(values))


def _by_rank(claim: Claim, shown: Sequence[tuple[Entry, Entry]]) -> Finding | None:
    """By the auditor's distributions. A token that is not among its twenty likeliest may have been picked by chance."""
    judged = [_too_unlikely(claim, own, predicted) for own, predicted in shown if own.text]
    misses = sum(missed for missed, _ in judged)
    chance = probability_of_misses([share for _, share in judged], misses)
    if chance >= CHANCE_MAX:
        return None
    detail = (
        f"the auditor finds {misses} of {len(judged)} tokens too unlikely to be picked, by a chance of {chance:.1e}"
    )
    return Finding(outcome="disagree", reason="rank", detail=detail)


def _too_unlikely(claim: Claim, own: Entry, predicted: Entry) -> tuple[bool, float]:
    """Whether sampling could hardly pick the token by the auditor's distribution, and how often it would."""
    listed = [logprob for _, logprob in predicted.top]
    lowest = max(listed) - _reach_nats(claim) - AUDITOR_SLACK_NATS
    found = logprob_among(own.text, predicted.top)
    if min(listed) < lowest:
        return found is None or found < lowest, MISJUDGED_SHARE
    share = tail_share(listed, max(claim.temperature, TEMPERATURE_MIN))
    return found is None, max(MISJUDGED_SHARE, share)


def _by_end(claim: Claim, end: Entry | None) -> Finding | None:
    view = None if end is None else view_of(end.top)
    if end is None or view is None:
        return None
    likeliest = max(logprob for _, logprob in end.top)
    ending = math.log(max(view.at_most(""), 1e-300))
    if math.isinf(_reach_nats(claim)):
        enough = math.log(CHANCE_MAX) * max(1.0, claim.temperature)
    else:
        enough = likeliest - _reach_nats(claim) - AUDITOR_SLACK_NATS
    if ending >= enough:
        return None
    detail = f"the text ends where its end has a probability of {math.exp(ending):.1e}"
    return Finding(outcome="disagree", reason="early_end", detail=detail)


def _by_picks(claim: Claim, known: Sequence[Entry]) -> Finding | None:
    """By the executor's own distributions: tokens that sampling as asked never picks."""
    reach = _reach_nats(claim) + LOGPROB_SLACK
    others = sum(
        entry.logprob is not None and entry.logprob < max(logprob for _, logprob in entry.top) - reach
        for entry in known
    )
    if others <= UNPICKED_SHARE_MAX * len(known):
        return None
    detail = f"{others} of {len(known)} tokens are too unlikely to be picked at temperature {claim.temperature:g}"
    return Finding(outcome="disagree", reason="unpicked", detail=detail)


def _by_likelihood(claim: Claim, known: Sequence[Entry]) -> Finding | None:
    """By the executor's own distributions: tokens that sampling picks, but not so many unlikely ones."""
    if claim.temperature < TEMPERATURE_MIN:
        return None
    logarithm = surprise(known, claim.temperature, reach_nats=_reach_nats(claim) + LOGPROB_SLACK)
    if logarithm >= math.log(CHANCE_MAX):
        return None
    detail = f"tokens as unlikely as these {len(known)} are sampled by a chance of e^{logarithm:.0f} at most"
    return Finding(outcome="disagree", reason="surprisal", detail=detail)


def _known_entries(claim: Claim) -> list[Entry]:
    return [
        entry for index, entry in enumerate(claim.entries) if not _may_be_cut(claim, index) and is_telling(entry.top)
    ]


def _reach_nats(claim: Claim) -> float:
    """How much less likely than the likeliest a picked token can be. Some runtimes cut before they apply the
    temperature, others after it: the wider of the two."""
    if claim.temperature < TEMPERATURE_MIN:
        return 0.0
    return -max(1.0, claim.temperature) * math.log(claim.min_p) if 0 < claim.min_p <= 1 else math.inf


def _fabricated(claim: Claim) -> Finding | None:
    """Numbers that no model gave: a token's own log-probability is that of its alternatives, or below them all."""
    odd = sum(not _is_consistent(entry) for entry in claim.entries)
    if odd <= max(1.0, FABRICATED_SHARE_MAX * len(claim.entries)):
        return None
    detail = f"{odd} of {len(claim.entries)} entries contradict their own alternatives"
    return Finding(outcome="disagree", reason="fabricated", detail=detail)


def _is_consistent(entry: Entry) -> bool:
    if entry.logprob is None or not entry.top:
        return True
    own = entry.logprob
    # An entry without text shows nothing of its token: markers, and whatever a tool call was made of.
    same = [logprob for text, logprob in entry.top if entry.text and text == entry.text]
    if same:
        return any(abs(own - logprob) <= LOGPROB_SLACK for logprob in same)
    lowest = min(logprob for _, logprob in entry.top)
    # The text may be a part of the token's: a space that was taken away, a stop sequence, a character in pieces.
    return own <= lowest + LOGPROB_SLACK or any(abs(own - logprob) <= LOGPROB_SLACK for _, logprob in entry.top)


def _places(claim: Claim) -> Iterator[_Place]:
    """The first entry at each offset, as far as no text was lost. What comes after it at the same offset follows tokens
    that are not in the text."""
    offset, seen, room = 0, -1, 0
    for index, entry in enumerate(claim.entries):
        if offset > seen:
            yield _Place(offset, index, room)
            seen = offset
        if GAP in entry.text:
            return
        offset += len(_bytes(entry.text))
        room += _hideable(entry)


def _is_comparable(claim: Claim, place: _Place) -> bool:
    entry = claim.entries[place.index]
    if place.index and _may_be_cut(claim, place.index):
        return False
    return _is_clear(entry) and is_telling(entry.top)


def _is_clear(entry: Entry) -> bool:
    """Whether the alternatives belong to the first token of the entry: where a character came in pieces, they are of
    the last."""
    return GAP not in entry.text and (entry.text.isascii() or is_among(entry.text, entry.top))


def _hideable(entry: Entry) -> int:
    """How many tokens more than one the entry may stand for: one for each byte but the last of its characters."""
    return 0 if entry.text.isascii() else max(0, len(_bytes(entry.text)) - 1)


def _unexplained_max(claim: Claim) -> int:
    if claim.finish_reason == "length":
        return 0
    return STOP_TOKENS_MAX if claim.stops or claim.finish_reason == "tool_calls" else ENDING_TOKENS_MAX


def _shows_its_end(claim: Claim) -> bool:
    """Whether the text is all that the model wrote before its end."""
    return (
        claim.finish_reason == "stop"
        and not claim.stops
        and not claim.constrained
        and GAP not in claim.text
        and claim.text == "".join(entry.text for entry in claim.entries)
    )


def _is_short(claim: Claim) -> bool:
    """Cut for its length before it had the length that was asked for: its context was full, or it stopped early."""
    return claim.finish_reason == "length" and claim.completion_tokens < claim.tokens_max


def _hidden_tokens(claim: Claim) -> int:
    """Tokens of the answer that neither entries nor the bytes of their characters explain."""
    return claim.completion_tokens - len(claim.entries) - sum(map(_hideable, claim.entries))


def _may_be_cut(claim: Claim, index: int) -> bool:
    return claim.finish_reason == "stop" and index == len(claim.entries) - 1


def _base_is_unknown(claim: Claim) -> bool:
    return claim.prompt_tokens == 0 and claim.finish_reason in ("length", "cancelled")


def _malformed(probes: Probes, answer: Answer) -> Finding | None:
    expected, positions = len(probes.positions), probes.positions
    if (
        expected
        and positions[0] == 0
        and all(one < other for one, other in pairwise(positions))
        and expected == len(answer.prompt_tokens) == len(answer.entries)
    ):
        return None
    detail = f"{len(answer.prompt_tokens)} counts and {len(answer.entries)} entries for {expected} positions"
    return Finding(outcome="unusable", reason="malformed_answer", detail=detail, unusable=expected)


def _drawn(uncertainties: Mapping[int, float], count: int, random_bytes: RandomBytes) -> set[int]:
    """Up to `count` of these offsets: half of them each as likely as any other, so that nobody gains by feigning to be
    certain, and half by how uncertain the executor says it was there, because where all is certain any two models
    agree."""
    left = dict.fromkeys(uncertainties, 1.0)
    drawn: set[int] = set()
    for number in range(min(count, len(left))):
        if number == (count + 1) // 2:
            left = {offset: UNCERTAINTY_MIN + uncertainties[offset] for offset in left}
        ends = list(accumulate(left.values()))
        at = bisect_right(ends, _fraction(random_bytes) * ends[-1])
        chosen = list(left)[min(at, len(left) - 1)]
        del left[chosen]
        drawn.add(chosen)
    return drawn


def _fraction(random_bytes: RandomBytes) -> float:
    return int.from_bytes(random_bytes(7), "big") / (1 << 56)
