"""The harness itself: traffic and oracle agree though they share no code, and breakage is seen."""

from __future__ import annotations

import copy
import zlib
from collections import defaultdict
from collections.abc import Callable

import pytest

from contracts.events import decode_exposure, decode_feedback
from contracts.reading import ContractError
from tests.streaming.promise.comparison import DeadLetter, Verdict, compare
from tests.streaming.promise.oracle import EXPOSURES, FEEDBACK, Message, Rules, Truth, judge
from tests.streaming.promise.traffic import (
    BAD,
    CONFLICT,
    COUNTS,
    DUPLICATE,
    LATE,
    NOT_SHOWN,
    OPEN,
    ORPHAN,
    REPLACED,
    SLATE,
    UNFIT,
    Clock,
    Scripted,
    aftermath,
    pushers,
    traffic,
)

CLOCK = Clock(begin=1_700_000_000_000, join_window=60_000, lateness=120_000)
RULES = Rules(join_window=60_000, lateness=120_000, future=CLOCK.begin + 43_200_000)
REASONS = {fate: {fate} for fate in (BAD, UNFIT, CONFLICT, LATE, ORPHAN, NOT_SHOWN)}
PARTITIONS = 3


class Log:
    """Topics in memory."""

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.meant: list[str] = []
        self.ends: dict[tuple[str, int], int] = defaultdict(int)

    def send(self, scripted: list[Scripted], partition: int | None = None) -> None:
        for one in scripted:
            at = zlib.crc32(one.key or b"") % PARTITIONS if partition is None else partition
            place = (one.topic, at, self.ends[one.topic, at])
            self.messages.append(Message(*place, one.key, one.value))
            self.meant.append(one.meant)
            self.ends[one.topic, at] += 1


def whole_run(seed: int) -> tuple[Log, Truth]:
    log = Log()
    sent = traffic(seed, 400, CLOCK)
    log.send(sent)
    for partition in range(PARTITIONS):
        log.send(pushers(partition, CLOCK.begin + 3_600_000, "p"), partition)
    marks = dict(log.ends)
    log.send(aftermath(seed, sent, 30))
    return log, judge(log.messages, RULES, marks)


@pytest.mark.parametrize("seed", range(5))
def test_oracle_finds_what_the_traffic_meant(seed: int) -> None:
    log, truth = whole_run(seed)
    found = {
        meant: {
            truth.fates[message.place] for message, m in zip(log.messages, log.meant) if m == meant
        }
        for meant in log.meant
    }
    kinds = (SLATE, COUNTS, REPLACED, DUPLICATE, OPEN, *REASONS)
    assert found == {meant: {meant} for meant in kinds}


def test_the_contract_refuses_what_the_oracle_calls_bad() -> None:
    """And nothing else; but for event times a day ahead, which the contract cannot know."""
    log, truth = whole_run(0)
    for message in log.messages:
        refused = False
        try:
            decode = decode_exposure if message.topic == EXPOSURES else decode_feedback
            refused = decode(message.value).time >= RULES.future
        except ContractError:
            refused = True
        assert refused == (truth.fates[message.place] == BAD), message


def test_what_counts_cannot_come_late() -> None:
    """Even if one topic were read far ahead of the other, no watermark comes near a slate that a
    message which counts still belongs to."""
    log, truth = whole_run(1)
    newest: dict[int, int] = defaultdict(int)
    counted = 0
    for message, meant in zip(log.messages, log.meant):
        if meant in (BAD, UNFIT, OPEN):
            continue
        decode = decode_exposure if message.topic == EXPOSURES else decode_feedback
        event = decode(message.value)
        if meant in (SLATE, COUNTS, REPLACED, DUPLICATE):
            closes = truth.rows[event.request_id]["time"] + CLOCK.join_window
            slack = CLOCK.lateness - CLOCK.reach - CLOCK.step
            assert newest[message.partition] - CLOCK.lateness + slack < closes, message
            counted += 1
        newest[message.partition] = max(newest[message.partition], event.time)
    assert counted > 1000


def perfect(truth: Truth) -> tuple[list[dict], list[DeadLetter]]:
    rows = copy.deepcopy(list(truth.rows.values()))
    letters = [DeadLetter(place, fate, truth.values[place]) for place, fate in truth.dead.items()]
    return rows, letters


def test_a_kept_promise_is_seen_as_kept() -> None:
    _, truth = whole_run(2)
    assert compare(truth, *perfect(truth), REASONS) == Verdict(broken=(), repeats=0)


def with_click(rows: list[dict]) -> dict:
    return next(row for row in rows if any(row["feedback__click"]))


def lose_a_click(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    with_click(rows)["feedback__click"] = [None] * 3


def invent_a_click(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    row = next(row for row in rows if None in row["feedback__click"])
    row["feedback__click"][row["feedback__click"].index(None)] = 1.0


def older_watch(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    row = next(row for row in rows if any(row["feedback__watch"]))
    row["feedback_time__watch"] = [t and t - 1 for t in row["feedback_time__watch"]]


def alien_letter(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    letters.append(DeadLetter((FEEDBACK, 0, 10**9), BAD, b""))


def timely_letter(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    place = min(truth.places(COUNTS))
    letters.append(DeadLetter(place, LATE, truth.values[place]))


def altered_letter(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    letters[0] = DeadLetter(letters[0].place, letters[0].reason, letters[0].value + b" ")


def wrong_reason(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    at = next(at for at, one in enumerate(letters) if one.reason == ORPHAN)
    letters[at] = DeadLetter(letters[at].place, BAD, letters[at].value)


def open_row(rows: list[dict], letters: list[DeadLetter], truth: Truth) -> None:
    rows.append({**rows[0], "request_id": "p-0"})


Break = Callable[[list[dict], list[DeadLetter], Truth], object]


@pytest.mark.parametrize(
    ("spoil", "complaint"),
    [
        (lambda rows, letters, truth: rows.pop(7), "missing"),
        (lambda rows, letters, truth: rows.append(rows[7]), "2 rows"),
        (lambda rows, letters, truth: letters.pop(), "lost"),
        (lambda rows, letters, truth: rows[3].update(arm="other"), "arm is 'other'"),
        (lambda rows, letters, truth: rows[3].pop("seed"), "seed"),
        (lose_a_click, "feedback__click"),
        (invent_a_click, "feedback__click"),
        (older_watch, "feedback_time__watch"),
        (alien_letter, "nothing was sent there"),
        (timely_letter, "no dead letter"),
        (altered_letter, "not the bytes"),
        (wrong_reason, "that message is orphan"),
        (open_row, "still open"),
    ],
)
def test_a_broken_promise_is_seen(spoil: Break, complaint: str) -> None:
    _, truth = whole_run(3)
    rows, letters = perfect(truth)
    spoil(rows, letters, truth)
    verdict = compare(truth, rows, letters, REASONS)
    assert verdict.broken
    assert all(complaint in line for line in verdict.broken), verdict


def test_repeated_letters_are_counted_and_forgiven() -> None:
    _, truth = whole_run(4)
    rows, letters = perfect(truth)
    verdict = compare(truth, rows, letters + letters[:5], REASONS)
    assert verdict == Verdict(broken=(), repeats=5)
