"""The parts of the daemon that need no coordinator."""

from __future__ import annotations

import json
import random
import stat
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parallelix.node import uptime_log
from parallelix.node.backoff import RETRY_AFTER_SECONDS_MAX, WAIT_SECONDS_MAX, Backoff
from parallelix.node.clock import CoordinatorClock
from parallelix.node.events import short
from parallelix.node.output import FRAME_PLAIN_BYTES_MAX, Output, OutputFull
from parallelix.node.private_text import WITHHELD, private_texts_of, without_private_text
from parallelix.node.uptime_log import UptimeLog
from parallelix.protocol import messages
from parallelix.protocol.messages import UptimeReceipt
from parallelix.protocol.work import Entry, Message, Payload, Sampling, decode_entries, encode_entries

PROMPT = 'Please translate "the heron nests at dawn" into\nUkrainian, grüße'

entries_of_any_text = st.lists(
    st.builds(Entry, st.text(st.characters(codec="utf-8"), max_size=5), st.floats(-50, 0), st.just(())), max_size=30
)


@given(entries_of_any_text)
def test_an_output_is_its_entries_whatever_frames_they_travel_in(entries: list[Entry]) -> None:
    output = Output()
    for entry in entries:
        output.add(entry)
    assert output.encoded_entries() == encode_entries(entries)
    assert output.text == "".join(entry.text for entry in entries)
    assert output.text_bytes == len(output.text.encode())
    for index in range(len(entries) + 1):
        resumed = output.index_at(output.offset_of(index))
        assert resumed is not None and output.offset_of(resumed) == output.offset_of(index)
        plain, end = output.batch(resumed)
        assert end == len(entries) and decode_entries(plain) == tuple(entries[resumed:])


def test_an_offset_inside_an_entry_or_beyond_the_output_is_none_of_ours() -> None:
    output = Output()
    output.add(Entry("größe"))
    output.add(Entry("!"))
    assert [output.index_at(offset) for offset in (0, 1, 7, 8, 9, -1)] == [0, None, 1, 2, None, None]


def test_many_entries_are_split_into_frames_that_a_coordinator_takes() -> None:
    output = Output()
    for _ in range(40):
        output.add(Entry("x" * 20_000))
    index, frames = 0, 0
    while index < output.count:
        plain, index = output.batch(index)
        assert len(plain) <= FRAME_PLAIN_BYTES_MAX + 2
        frames += 1
    assert frames == 4


def test_an_entry_that_fits_no_frame_and_text_that_is_not_unicode_are_refused() -> None:
    output = Output()
    with pytest.raises(OutputFull):
        output.add(Entry("x" * (FRAME_PLAIN_BYTES_MAX + 1)))
    with pytest.raises(ValueError, match="surrogates"):
        output.add(Entry("\ud800"))
    assert output.count == 0 and output.text == ""


@pytest.mark.parametrize(
    "message",
    [
        'invalid request: {"content": "Please translate \\"the heron nests at dawn\\" into\\nUkrainian"}',
        "cannot parse: the heron nests at",
        "THE  HERON\nNESTS AT DAWN",
        "the\\u0020heron\\u0020nests at",
        "ended at …Ukrainian, grüße",
    ],
)
def test_a_message_that_quotes_the_prompt_is_withheld(message: str) -> None:
    payload = Payload(
        kind="chat", model="m", messages=(Message(role="user", content=PROMPT),), sampling=Sampling(max_tokens=1)
    )
    assert without_private_text(message, private_texts_of(payload)) == WITHHELD


def test_a_short_prompt_is_not_quoted_either() -> None:
    assert without_private_text("bad token near 'xylophone'", ["xylophone"]) == WITHHELD


def test_a_message_of_its_own_is_told_on_one_line() -> None:
    message = "model requires more system memory (5.6 GiB)\nthan is available"
    assert without_private_text(message, [PROMPT, "", "an answer"]) == message.replace("\n", " ")
    assert len(without_private_text("x" * 5000, [PROMPT])) == 200


def test_stamps_of_one_purpose_only_go_up_and_a_step_of_the_machines_time_moves_none() -> None:
    monotonic, wall = 100.0, 1_000_000.0
    clock = CoordinatorClock(wall_seconds=lambda: wall, monotonic_seconds=lambda: monotonic)
    assert [clock.stamp_ms("ack") for _ in range(3)] == [1_000_000_000, 1_000_000_001, 1_000_000_002]
    wall = 5_000_000.0
    monotonic = 101.0
    assert clock.now_ms() == 1_000_001_000
    clock.learn(999_000_000, round_trip_ms=20)
    assert clock.now_ms() == 999_000_010
    assert clock.stamp_ms("ack") == 1_000_000_003
    clock.correct(999_000_000)
    assert clock.stamp_ms("ack") == 999_000_000


def test_waits_grow_to_their_bound_and_never_fall_short_of_what_was_asked() -> None:
    longest = Backoff(uniform=lambda _low, high: high)
    assert [longest.next_seconds() for _ in range(8)][:3] == [0.25, 0.5, 1.0]
    assert longest.next_seconds() == WAIT_SECONDS_MAX
    chance = random.Random(1)
    jittered = Backoff(uniform=chance.uniform)
    waits = [jittered.next_seconds(2.0) for _ in range(100)]
    assert min(waits) >= 2.0 and max(waits) <= 2.0 + WAIT_SECONDS_MAX and len(set(waits)) == 100
    assert longest.next_seconds(10**9) == RETRY_AFTER_SECONDS_MAX + WAIT_SECONDS_MAX


def test_short_names_keep_what_finds_them() -> None:
    made_together = ["req_019ab1c2d3e4" + random * 26 for random in ("12", "34")]
    assert [short(each) for each in made_together] == ["req_…12121212", "req_…34343434"]
    assert short("0x" + "12" * 32) == "0x12121212…"
    assert short("att_1") == "att_1"


def receipt(slot: int) -> UptimeReceipt:
    return UptimeReceipt(
        node_id="1", session="s", unix_ms=slot, slot=slot, credited=True, server_time=slot, signature="0x"
    )


def test_receipts_are_private_lines_in_files_of_bounded_size_and_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptime_log, "FILE_BYTES_MAX", 1000)
    log = UptimeLog(tmp_path)
    for slot in range(400):
        log.append(receipt(slot))
    log.close()
    files = sorted(tmp_path.iterdir())
    assert len(files) == 1 + uptime_log.OLD_FILES_MAX
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_size < 1200 for path in files)
    slots = [
        json.loads(line)["slot"]
        for number in range(uptime_log.OLD_FILES_MAX, -1, -1)
        for line in (tmp_path / (f"receipts.{number}.jsonl" if number else "receipts.jsonl")).read_text().splitlines()
    ]
    assert slots == list(range(slots[0], 400)) and len(slots) > 50


def test_a_receipt_file_that_is_a_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").touch()
    (tmp_path / "receipts.jsonl").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="receipts"):
        UptimeLog(tmp_path).append(receipt(1))


def test_the_receipts_of_the_last_slots_are_found_again_one_for_each_over_a_rotation_and_bad_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uptime_log, "FILE_BYTES_MAX", 1000)
    log = UptimeLog(tmp_path)
    assert log.recent(0) == []
    for slot in range(9):
        log.append(receipt(slot))
        log.append(receipt(slot))
        if slot == 6:
            with (tmp_path / "receipts.jsonl").open("ab") as file:
                file.write(b'{"torn\n\xff\n{}\n')
    log.close()
    assert (tmp_path / "receipts.1.jsonl").exists()
    assert [found.slot for found in log.recent(5)] == [5, 6, 7, 8]


def test_no_more_receipts_are_found_than_may_be_sent(tmp_path: Path) -> None:
    log = UptimeLog(tmp_path)
    for slot in range(300):
        log.append(receipt(slot))
    log.close()
    assert [found.slot for found in log.recent(0)] == list(range(300 - messages.UPTIME_PROOFS_MAX, 300))
