from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from parallelix.node.runtimes.base import TokenEntry
from parallelix.node.runtimes.entries import Pairing, Scored, StopSequences

PIECES = st.lists(st.text(alphabet="ab\n", min_size=1, max_size=3), max_size=12)


def scored(*tokens: str) -> list[Scored]:
    return [Scored(token=token, logprob=-1.0 - index) for index, token in enumerate(tokens)]


def texts(entries: list[TokenEntry]) -> list[str]:
    return [entry.text for entry in entries]


def shown(pieces: list[str], stops: list[str]) -> tuple[list[TokenEntry], bool]:
    sequences = StopSequences(stops)
    entries: list[TokenEntry] = []
    for piece in pieces:
        entries += sequences.add(TokenEntry(text=piece))
        if sequences.found:
            return entries, True
    return entries + sequences.flush(), False


def test_text_without_numbers_is_an_entry_of_its_own() -> None:
    assert Pairing().add("hello", []) == [TokenEntry(text="hello")]


def test_numbers_wait_for_their_text() -> None:
    pairing = Pairing()

    assert pairing.add("", scored("<|think|>")) == []
    entries = pairing.add("Yes", scored("Yes"))

    assert texts(entries) == ["", "Yes"]


def test_a_stop_sequence_cuts_the_token_it_begins_in() -> None:
    assert texts(Pairing().add("one t", scored("one", " two", " STOP"))) == ["one", " t"]


def test_a_stop_sequence_between_tokens_leaves_those_after_it_out() -> None:
    assert texts(Pairing().add("one two", scored("one", " two", " ST", "OP"))) == ["one", " two"]


def test_what_is_forgotten_never_comes() -> None:
    pairing = Pairing()
    pairing.add("", scored("Hm"))
    pairing.forget()

    assert texts(pairing.add("Yes", scored("Yes"))) == ["Yes"]


@given(PIECES)
def test_released_text_is_shared_out_whole(pieces: list[str]) -> None:
    entries = Pairing().add("".join(pieces), scored(*pieces))

    assert texts(entries) == pieces


@given(PIECES, st.integers(0, 36))
def test_cut_text_is_shared_out_whole_too(pieces: list[str], length: int) -> None:
    text = "".join(pieces)[:length]

    entries = Pairing().add(text, scored(*pieces))

    assert "".join(texts(entries)) == text
    assert len(entries) <= len(pieces)


@given(PIECES, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=4), max_size=3))
def test_text_ends_before_the_first_stop_sequence(pieces: list[str], stops: list[str]) -> None:
    whole = "".join(pieces)

    entries, found = shown(pieces, stops)

    text = "".join(texts(entries))
    assert found == any(stop in whole for stop in stops)
    assert whole.startswith(text)
    assert not any(stop in text for stop in stops)
    if not found:
        assert texts(entries) == pieces


def test_text_that_may_begin_a_stop_sequence_is_held_back() -> None:
    sequences = StopSequences(["\n\nUser:"])

    assert sequences.add(TokenEntry(text="Hello\n")) == []
    assert texts(sequences.add(TokenEntry(text="there"))) == ["Hello\n", "there"]
    assert sequences.add(TokenEntry(text="\n\nUs")) == []
    assert sequences.add(TokenEntry(text="er: hi")) == []
    assert sequences.found
