"""The spot check's rules, on claims and answers written by hand. Real models have their own tests."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelix.protocol import spot_check
from parallelix.protocol.calibration import DEFAULT_CARD, Card, SpreadAt, peak_threshold, threshold
from parallelix.protocol.spot_check import Answer, Claim, choose_probes, compare, compare_answers
from parallelix.protocol.work import Entry, FinishReason, Probes

BASE = 7
OTHERS = (" red", " green", " blue", " black")
WORDS = (
    "Once",
    " upon",
    " a",
    " time",
    " there",
    " was",
    " a",
    " node",
    " that",
    " answered",
    " everybody",
    " well",
    ".",
)
END = Entry(
    "",
    math.log(0.9),
    tuple((text, math.log(share)) for text, share in zip(("", *OTHERS), (0.9, 0.04, 0.03, 0.02, 0.005), strict=True)),
)


def entry(text: str, share: float = 0.7, *, others: Sequence[str] = OTHERS) -> Entry:
    """A token with this probability, first of five; the others share most of what is left."""
    left = 0.96 * (1 - share) / len(others)
    return Entry(text, math.log(share), ((text, math.log(share)), *((other, math.log(left)) for other in others)))


def claim_of(*entries: Entry, finish: FinishReason = "stop", **changes: Any) -> Claim:
    text = "".join(each.text for each in entries)
    claim = Claim(
        kind="chat",
        model_digest="d1" * 32,
        prompt_tokens=BASE,
        completion_tokens=len(entries) + (finish == "stop"),
        text=text,
        finish_reason=finish,
        entries=tuple(entries),
        content=text.encode(),
        temperature=1.0,
    )
    return msgspec.structs.replace(claim, **changes)


STORY = claim_of(*(entry(word) for word in WORDS))


def answer_to(
    claim: Claim, probes: Probes, *, base: int = BASE, predicted: Callable[[Entry], Entry] | None = None
) -> Answer:
    """An honest auditor's, or one whose predictions are changed by `predicted`."""
    at = starts(claim)
    indexes = [at.get(position, len(claim.entries)) for position in probes.positions]
    entries = [claim.entries[index] if index < len(claim.entries) else END for index in indexes]
    return Answer(
        prompt_tokens=tuple(base + index for index in indexes),
        entries=tuple(map(predicted, entries)) if predicted is not None else tuple(entries),
    )


def starts(claim: Claim) -> dict[int, int]:
    found: dict[int, int] = {}
    offset = 0
    for index, each in enumerate(claim.entries):
        found.setdefault(offset, index)
        offset += len(each.text.encode())
    return found


def chance(seed: int = 1) -> Callable[[int], bytes]:
    return random.Random(seed).randbytes


def probes_of(claim: Claim, *, seed: int = 1, count: int = 12) -> Probes:
    probes = choose_probes(claim, chance(seed), count=count)
    assert probes is not None
    return probes


def judged(claim: Claim, *, base: int = BASE, predicted: Callable[[Entry], Entry] | None = None) -> tuple[str, str]:
    probes = probes_of(claim)
    finding = compare(claim, probes, answer_to(claim, probes, base=base, predicted=predicted), DEFAULT_CARD)
    return finding.outcome, finding.reason


# Where to look --------------------------------------------------------------------------------------------------------


def test_positions_are_beginnings_of_entries_from_the_empty_prefix_to_the_end_of_the_text_sent() -> None:
    probes = probes_of(STORY, count=4)

    *inside, end = probes.positions
    assert probes.positions[0] == 0
    assert set(inside) <= starts(STORY).keys()
    assert len(inside) == 5
    assert list(probes.positions) == sorted(set(probes.positions))
    assert end == len(probes.text.encode()) == len(STORY.text.encode())


def test_only_as_much_text_is_sent_as_the_last_position_needs() -> None:
    unfinished = claim_of(*(entry(word) for word in WORDS), finish="length")

    probes = probes_of(unfinished, count=3)

    assert probes.text.encode() == unfinished.text.encode()[: probes.positions[-1]]
    assert probes.positions[-1] in starts(unfinished)


def test_nobody_can_tell_the_positions_beforehand() -> None:
    drawn = {probes_of(STORY, seed=seed, count=3).positions for seed in range(50)}

    assert len(drawn) > 20


def test_every_place_may_be_drawn_where_the_executor_feigns_to_be_certain_of_all_but_one() -> None:
    feigned = claim_of(*(entry(word, 0.5 if number == 3 else 0.999) for number, word in enumerate(WORDS)))

    drawn = [probes_of(feigned, seed=seed, count=4).positions for seed in range(400)]

    assert {position for positions in drawn for position in positions} >= set(list(starts(feigned))[:-1])
    uncertain = list(starts(feigned))[3]
    assert sum(uncertain in positions for positions in drawn) > 380


def test_the_last_entry_of_a_text_that_may_have_been_cut_is_not_probed() -> None:
    last = list(starts(STORY))[-1]

    assert all(last not in probes_of(STORY, seed=seed).positions[:-1] for seed in range(20))


@pytest.mark.parametrize(
    "change", [{"stops": True}, {"constrained": True}, {"finish_reason": "length", "completion_tokens": 13}]
)
def test_the_end_is_probed_only_where_the_text_ended_of_itself(change: dict[str, Any]) -> None:
    claim = msgspec.structs.replace(STORY, **change)

    assert probes_of(claim).positions[-1] < len(claim.text.encode())
    assert probes_of(STORY).positions[-1] == len(STORY.text.encode())


def test_nothing_behind_a_lost_character_is_probed() -> None:
    lost = claim_of(
        entry("Once"), entry(" upon"), Entry("\ufffd", -1.0, entry(" a").top), *(entry(word) for word in WORDS)
    )

    assert probes_of(lost).positions == (0, 4)


def test_an_answer_that_begins_with_a_character_in_pieces_cannot_be_probed() -> None:
    pieces = Entry("🦜", -0.2, tuple((text, -1.8) for text in OTHERS))

    assert choose_probes(claim_of(pieces, finish="length"), chance()) is None
    # Where the vocabulary has the character, it is a token like any other.
    assert probes_of(claim_of(entry("🦜"), finish="length")).positions == (0,)


def test_offsets_are_bytes() -> None:
    chinese = claim_of(entry("你好"), entry("，"), entry("世界"), entry("。"), finish="length")

    assert probes_of(chinese).positions == (0, 6, 9, 15)


def test_of_entries_without_text_the_first_stands_for_the_place() -> None:
    call = claim_of(entry(""), entry(""), entry(""), finish="tool_calls", constrained=True)

    assert probes_of(call).positions == (0,)
    assert judged(call) == ("agree", "")
    assert judged(call, predicted=lambda own: entry("no", 0.9)) == ("disagree", "distance")


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "embedding"},
        {"entries": (), "completion_tokens": 13, "finish_reason": "length"},
        {"completion_tokens": 13 + 4},
        {"entries": tuple(Entry(word, -0.1) for word in WORDS)},
    ],
)
def test_without_anything_to_compare_there_are_no_probes(change: dict[str, Any]) -> None:
    assert choose_probes(msgspec.structs.replace(STORY, **change), chance()) is None


# Counts ---------------------------------------------------------------------------------------------------------------


def test_an_honest_answer_agrees() -> None:
    probes = probes_of(STORY)
    finding = compare(STORY, probes, answer_to(STORY, probes), DEFAULT_CARD)

    assert (finding.outcome, finding.distance, finding.usable, finding.unusable) == ("agree", 0.0, 12, 0)


def test_another_count_of_prompt_tokens_is_a_disagreement() -> None:
    assert judged(STORY, base=BASE + 1) == ("disagree", "base_tokens")


@pytest.mark.parametrize(
    ("finish", "verdict"),
    [("length", ("agree", "")), ("cancelled", ("agree", "")), ("stop", ("disagree", "base_tokens"))],
)
def test_only_a_runtime_that_was_stopped_has_not_counted_the_prompt(
    finish: FinishReason, verdict: tuple[str, str]
) -> None:
    claim = claim_of(*(entry(word) for word in WORDS), finish=finish, prompt_tokens=0)

    assert judged(claim) == verdict


@pytest.mark.parametrize("by", [-1, 1])
def test_what_is_read_otherwise_counts_for_nothing_from_there_on(by: int) -> None:
    probes = probes_of(STORY)
    honest = answer_to(STORY, probes, predicted=lambda own: entry("no", 0.9))
    counts = tuple(count + (by if number == 4 else 0) for number, count in enumerate(honest.prompt_tokens))
    own = [STORY.entries[starts(STORY)[position]] for position in probes.positions[:4]]

    finding = compare(STORY, probes, Answer(prompt_tokens=counts, entries=(*own, *honest.entries[4:])), DEFAULT_CARD)

    assert (finding.outcome, finding.usable, finding.unusable) == ("agree", 4, 8)


def test_positions_that_are_all_read_otherwise_are_unusable() -> None:
    claim = claim_of(
        entry("Once"),
        entry(" upon"),
        entry(" a"),
        finish="length",
        entries=(Entry("Once"), entry(" upon"), entry(" a")),
    )
    probes = Probes(text="Once upon", positions=(0, 4, 9))
    answer = Answer(prompt_tokens=(BASE, BASE + 3, BASE + 4), entries=(entry("Once"), entry(" upon"), entry(" a")))

    finding = compare(claim, probes, answer, DEFAULT_CARD)

    assert (finding.outcome, finding.reason, finding.unusable) == ("unusable", "retokenised", 3)


@pytest.mark.parametrize(("extra", "usable"), [(0, 3), (1, 3), (3, 3), (4, 2)])
def test_a_character_in_pieces_leaves_room_for_as_many_tokens_as_it_has_bytes(extra: int, usable: int) -> None:
    pieces = Entry("🦜", -0.2, tuple((text, -1.8) for text in OTHERS))
    claim = claim_of(entry("A"), entry(" parrot"), pieces, entry(" sings"), finish="length")
    claim = msgspec.structs.replace(claim, completion_tokens=4 + min(extra, 3))
    probes = Probes(text="A parrot🦜", positions=(0, 1, 12))
    answer = Answer(
        prompt_tokens=(BASE, BASE + 1, BASE + 3 + extra), entries=(entry("A"), entry(" parrot"), entry(" sings"))
    )

    finding = compare(claim, probes, answer, DEFAULT_CARD)

    assert (finding.outcome, finding.usable) == ("agree", usable)


def test_thoughts_that_only_the_count_shows_make_an_answer_unusable() -> None:
    thought = msgspec.structs.replace(STORY, completion_tokens=STORY.completion_tokens + 50)
    probes = probes_of(STORY)

    finding = compare(thought, probes, answer_to(STORY, probes), DEFAULT_CARD)

    assert (finding.outcome, finding.reason) == ("unusable", "hidden_tokens")


def test_thoughts_do_not_hide_behind_the_bytes_of_later_characters() -> None:
    written = [entry("你好世界你好世界"), entry("."), entry(" Yes")]
    claim = claim_of(*written, finish="length", completion_tokens=3 + 12)
    probes = Probes(text="你好世界你好世界.", positions=(0, 24, 25))
    # As many tokens as entries before the last position: the twelve that are hidden are not in its characters.
    answer = Answer(prompt_tokens=(BASE, BASE + 1, BASE + 2), entries=tuple(written))

    finding = compare(claim, probes, answer, DEFAULT_CARD)

    assert finding.usable == 1
    assert finding.unusable == 2


# Distances ------------------------------------------------------------------------------------------------------------


def test_another_distribution_is_a_disagreement() -> None:
    assert judged(STORY, predicted=lambda own: entry(own.text, 0.7 - 0.06)) == ("disagree", "distance")
    assert judged(STORY, predicted=lambda own: entry(own.text, 0.7 - 0.02)) == ("agree", "")


def test_one_place_that_is_far_off_is_one_too_where_nothing_was_left_to_chance() -> None:
    greedy = msgspec.structs.replace(STORY, temperature=0.0)
    probes = probes_of(greedy)
    answer = answer_to(greedy, probes)
    peaked = (*answer.entries[:5], entry(answer.entries[5].text, 0.7 - 0.25), *answer.entries[6:])

    finding = compare(greedy, probes, msgspec.structs.replace(answer, entries=peaked), DEFAULT_CARD)

    assert (finding.outcome, finding.reason) == ("disagree", "peak")
    assert finding.distance < threshold(DEFAULT_CARD, finding.usable)


@pytest.mark.parametrize(("temperature", "outcome"), [(0.0, "disagree"), (0.8, "unusable")])
def test_a_few_places_far_off_behind_a_chance_pick_decide_nothing(temperature: float, outcome: str) -> None:
    claim = msgspec.structs.replace(STORY, temperature=temperature)
    probes = probes_of(claim)
    answer = answer_to(claim, probes)
    odd = tuple(entry("no", 0.9) if number in (5, 6) else each for number, each in enumerate(answer.entries))

    finding = compare(claim, probes, msgspec.structs.replace(answer, entries=odd), DEFAULT_CARD)

    assert finding.outcome == outcome
    assert finding.reason == ("distance" if outcome == "disagree" else "outliers")


def test_behind_a_token_that_may_be_read_otherwise_nothing_convicts() -> None:
    joined = [entry("Once"), entry("upon", 0.2), *(entry(word) for word in WORDS[2:])]
    expected = [entry("Once"), entry("upon", 0.5), *(entry(word) for word in WORDS[2:])]

    # Far off everywhere but at the empty prefix and behind the first token.
    def predicted(own: Entry) -> Entry:
        return own if own.text in ("Once", "upon") else entry("no", 0.9)

    assert judged(claim_of(*joined), predicted=predicted) == ("unusable", "outliers")
    assert judged(claim_of(*expected), predicted=predicted) == ("disagree", "distance")


def test_half_of_the_positions_are_drawn_without_regard_to_what_the_executor_says() -> None:
    feigned = claim_of(*(entry(f" {number}", 0.5 if number % 2 else 0.9999) for number in range(40)), finish="length")
    certain = {offset for offset, index in starts(feigned).items() if index % 2 == 0 and offset}

    drawn = [position for seed in range(200) for position in probes_of(feigned, seed=seed, count=4).positions]

    assert sum(position in certain for position in drawn) > 100


def test_the_empty_prefix_is_never_an_outlier() -> None:
    probes = probes_of(STORY)
    answer = answer_to(STORY, probes)

    finding = compare(
        STORY, probes, msgspec.structs.replace(answer, entries=(entry("No", 0.9), *answer.entries[1:])), DEFAULT_CARD
    )

    assert finding.outcome == "disagree"


def test_what_a_list_does_not_say_accuses_nobody() -> None:
    flat = Entry("a", math.log(0.15), tuple((text, math.log(0.15)) for text in "abcde"))
    other = Entry("v", math.log(0.15), tuple((text, math.log(0.15)) for text in "vwxyz"))

    # Each of the five has at most 0.15 in the other list, and exactly that in its own.
    assert judged(claim_of(flat, finish="length"), predicted=lambda own: other) == ("agree", "")


def test_markers_and_pieces_of_characters_count_alike_in_every_runtime() -> None:
    own = Entry("Yes", math.log(0.5), (("Yes", math.log(0.5)), ("", math.log(0.3)), *entry("", 0.8).top[1:]))
    theirs = Entry(
        "Yes",
        math.log(0.5),
        (("Yes", math.log(0.5)), ("<|im_end|>", math.log(0.2)), ("\ufffd", math.log(0.1)), *own.top[2:]),
    )

    assert judged(claim_of(own, finish="length"), predicted=lambda each: theirs) == ("agree", "")


@pytest.mark.parametrize(("shares", "reason"), [((0.6, 0.2), "no_alternatives"), ((0.9995,), "")])
def test_too_few_alternatives_say_nothing_unless_they_are_all(shares: tuple[float, ...], reason: str) -> None:
    few = Entry(
        "a", math.log(shares[0]), tuple((text, math.log(share)) for text, share in zip("ab", shares, strict=False))
    )
    claim = claim_of(few, finish="length")

    finding = compare(
        claim, Probes(text="", positions=(0,)), Answer(prompt_tokens=(BASE,), entries=(few,)), DEFAULT_CARD
    )

    assert finding.reason == reason


def test_a_position_that_an_auditor_cannot_predict_is_unusable() -> None:
    assert judged(STORY, predicted=lambda own: Entry("")) == ("unusable", "no_prediction")


# Tokens ---------------------------------------------------------------------------------------------------------------


def unlikely(text: str, *, gap_nats: float) -> Entry:
    """A token by so much less likely than the first of its list."""
    first = math.log(0.8)
    return Entry(
        text, first - gap_nats, ((OTHERS[0], first), (text, first - gap_nats), *((other, -6.0) for other in "xyz"))
    )


@pytest.mark.parametrize(
    ("temperature", "min_p", "gap_nats", "verdict"),
    [
        (0.0, 0.05, 0.5, ("disagree", "unpicked")),
        (0.0, 0.05, 0.0, ("agree", "")),
        (1.0, 0.05, 3.2, ("disagree", "unpicked")),
        (1.0, 0.05, 2.9, ("agree", "")),
        # After the temperature was applied, a wider one is cut.
        (1.5, 0.05, 4.4, ("agree", "")),
        (1.5, 0.05, 4.6, ("disagree", "unpicked")),
        (1.0, 0.0, 3.2, ("agree", "")),
    ],
)
def test_a_token_that_sampling_as_asked_never_picks(
    temperature: float, min_p: float, gap_nats: float, verdict: tuple[str, str]
) -> None:
    claim = claim_of(
        unlikely("Odd", gap_nats=gap_nats),
        *(entry(word, 0.9) for word in WORDS[1:]),
        temperature=temperature,
        min_p=min_p,
    )

    assert judged(claim) == verdict
    assert judged(msgspec.structs.replace(claim, constrained=True)) == ("agree", "")


def test_too_many_unlikely_tokens_were_written_by_somebody_else() -> None:
    odd = unlikely(" odd", gap_nats=2.5)
    claim = claim_of(*(odd if number % 2 else entry(" word", 0.9) for number in range(40)), min_p=0.05)

    assert judged(claim) == ("disagree", "surprisal")


def test_tokens_that_no_auditor_finds_likely() -> None:
    claim = msgspec.structs.replace(STORY, temperature=0.0)
    probes = probes_of(claim)
    answer = answer_to(claim, probes)
    # The same probabilities, and another word is the likeliest.
    swapped = [
        Entry(
            OTHERS[0],
            each.logprob,
            tuple(
                (text, math.log(share))
                for text, share in zip(
                    (OTHERS[0], *OTHERS[1:], "u", each.text), (0.3, 0.2, 0.2, 0.2, 0.05, 0.02), strict=False
                )
            ),
        )
        for each in answer.entries
    ]
    generous = Card(spreads=(SpreadAt(positions=1, samples=1, median=0, q99=0, q999=1, largest=1),))

    one = compare(claim, probes, msgspec.structs.replace(answer, entries=(swapped[0], *answer.entries[1:])), generous)
    two = compare(claim, probes, msgspec.structs.replace(answer, entries=(*swapped[:2], *answer.entries[2:])), generous)

    assert (one.outcome, two.outcome, two.reason) == ("agree", "disagree", "rank")


def test_an_answer_that_breaks_off_is_no_answer() -> None:
    broken = claim_of(*STORY.entries[:6])
    probes = probes_of(broken)
    answer = answer_to(broken, probes)
    goes_on = entry(" a", 0.9)

    finding = compare(
        broken, probes, msgspec.structs.replace(answer, entries=(*answer.entries[:-1], goes_on)), DEFAULT_CARD
    )

    assert (finding.outcome, finding.reason) == ("agree", "")
    cut = msgspec.structs.replace(broken, min_p=0.05)
    finding = compare(
        cut, probes, msgspec.structs.replace(answer, entries=(*answer.entries[:-1], goes_on)), DEFAULT_CARD
    )
    assert (finding.outcome, finding.reason) == ("disagree", "early_end")


@pytest.mark.parametrize(
    ("predicted", "verdict"), [(END, ("agree", "")), (entry("Once", 0.9), ("disagree", "early_end"))]
)
def test_an_empty_answer_is_judged_by_its_end(predicted: Entry, verdict: tuple[str, str]) -> None:
    empty = claim_of(min_p=0.05)
    probes = probes_of(empty)

    finding = compare(empty, probes, Answer(prompt_tokens=(BASE,), entries=(predicted,)), DEFAULT_CARD)

    assert probes.positions == (0,)
    assert (finding.outcome, finding.reason) == verdict


def test_an_answer_cut_before_its_length_is_not_acquitted() -> None:
    claim = claim_of(*STORY.entries, finish="length", tokens_max=64)

    assert judged(claim) == ("unusable", "short")
    assert judged(msgspec.structs.replace(claim, tokens_max=13)) == ("agree", "")


def test_numbers_that_contradict_themselves_are_made_up() -> None:
    made_up = [Entry(each.text, -0.01, each.top) for each in STORY.entries]

    assert judged(claim_of(*made_up)) == ("disagree", "fabricated")
    # One odd entry happens where a runtime takes an answer apart.
    assert judged(claim_of(made_up[0], *STORY.entries[1:])) == ("agree", "")


def test_tokens_without_text_do_not_contradict_others_without_text() -> None:
    call = Entry("", -0.01, (("call", -0.01), ("", -6.0), *((text, -7.0) for text in "abc")))

    assert judged(claim_of(call, call, call, finish="tool_calls", constrained=True)) == ("agree", "")


# Two auditors ---------------------------------------------------------------------------------------------------------


def test_two_auditors_are_compared_at_the_same_positions() -> None:
    probes = probes_of(STORY)
    first, other = answer_to(STORY, probes), answer_to(STORY, probes, predicted=lambda own: entry("no", 0.9))

    assert compare_answers(first, first, probes, DEFAULT_CARD).outcome == "agree"
    assert compare_answers(first, other, probes, DEFAULT_CARD).reason == "distance"
    assert compare_answers(first, answer_to(STORY, probes, base=8), probes, DEFAULT_CARD).reason == "base_tokens"
    blank = answer_to(STORY, probes, predicted=lambda own: Entry(""))
    assert compare_answers(first, blank, probes, DEFAULT_CARD).outcome == "unusable"


# Whatever comes -------------------------------------------------------------------------------------------------------

NUMBERS = st.one_of(st.floats(-30, 0), st.sampled_from([0.0, -1e-9, -1e308, 5.0, math.nan, -math.inf]))
TEXTS = st.one_of(st.text(max_size=3), st.sampled_from(["", "a", " a", "\ufffd", "🦜", "<s>", "\ud800"]))
ENTRIES = st.builds(
    Entry, TEXTS, st.one_of(st.none(), NUMBERS), st.lists(st.tuples(TEXTS, NUMBERS), max_size=7).map(tuple)
)
CLAIMS = st.builds(
    Claim,
    kind=st.sampled_from(["chat", "completion", "embedding"]),
    model_digest=st.just(""),
    prompt_tokens=st.integers(0, 9),
    completion_tokens=st.integers(0, 9),
    text=TEXTS,
    finish_reason=st.sampled_from(["stop", "length", "tool_calls", "cancelled"]),
    entries=st.lists(ENTRIES, max_size=6).map(tuple),
    temperature=st.sampled_from([0.0, 0.001, 0.8, 1.0, 2.0]),
    min_p=st.sampled_from([0.0, 0.05, 1.0]),
    constrained=st.booleans(),
)
ANSWERS = st.builds(
    Answer,
    prompt_tokens=st.lists(st.integers(0, 12), max_size=4).map(tuple),
    entries=st.lists(ENTRIES, max_size=4).map(tuple),
)
PROBES = st.builds(Probes, text=TEXTS, positions=st.lists(st.integers(0, 9), max_size=4).map(tuple))


@given(claim=CLAIMS, probes=PROBES, answer=ANSWERS, second=ANSWERS)
def test_garbage_is_judged_and_never_raises(claim: Claim, probes: Probes, answer: Answer, second: Answer) -> None:
    for finding in (
        compare(claim, probes, answer, DEFAULT_CARD),
        compare_answers(answer, second, probes, DEFAULT_CARD),
    ):
        assert finding.outcome in ("agree", "disagree", "unusable")
        assert 0 <= finding.distance <= 1
        assert finding.reason or finding.outcome == "agree"


@given(
    claim=CLAIMS.map(lambda claim: msgspec.structs.replace(claim, text="".join(each.text for each in claim.entries))),
    seed=st.integers(),
)
def test_garbage_is_probed_where_it_can_be(claim: Claim, seed: int) -> None:
    probes = choose_probes(claim, chance(seed))

    if probes is not None:
        assert probes.positions[0] == 0
        assert probes.positions[-1] == len(probes.text.encode(errors="replace"))
        assert all(one < other for one, other in zip(probes.positions, probes.positions[1:], strict=False))


def test_an_answer_of_another_shape_is_unusable() -> None:
    probes = probes_of(STORY)
    answer = answer_to(STORY, probes)

    short = msgspec.structs.replace(answer, entries=answer.entries[1:])

    assert compare(STORY, probes, short, DEFAULT_CARD).reason == "malformed_answer"
    assert compare(STORY, Probes(text="", positions=(3,)), answer, DEFAULT_CARD).reason == "malformed_answer"


def test_the_largest_distances_stand_in_a_fixed_order() -> None:
    assert spot_check.distances(STORY, probes_of(STORY), answer_to(STORY, probes_of(STORY))) == (0.0,) * 12
    assert peak_threshold(DEFAULT_CARD) > threshold(DEFAULT_CARD, 1) > threshold(DEFAULT_CARD, 8)
