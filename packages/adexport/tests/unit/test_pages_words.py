"""Figures and states in words: units, rounding at their borders, the seven states, the judgement of weights."""

from datetime import UTC, datetime, timedelta

import pytest

from adexport.queries import STATES
from adexport.web import words

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


@pytest.mark.parametrize(("size_bytes", "said"), [
    (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (9_949, "9.9 kB"), (9_950, "10 kB"), (150_000, "150 kB"),
    (999_499, "999 kB"), (999_500, "1.0 MB"), (311_000_000, "311 MB"), (5_400_000_000, "5.4 GB"),
    (2_000_000_000_000, "2,000 GB"),
])  # fmt: skip
def test_sizes_count_thousands(size_bytes: int, said: str) -> None:
    assert words.size(size_bytes) == said


@pytest.mark.parametrize(("seconds", "said"), [
    (None, "–"), (-1, "0 ms"), (0.04, "40 ms"), (0.0994, "99 ms"), (0.0996, "0.1 s"), (0.84, "0.8 s"),
    (9.94, "9.9 s"), (9.96, "10 s"), (59.4, "59 s"), (59.6, "1 min 00 s"),
    (125, "2 min 05 s"), (3599.7, "1 h 00 min"), (3780, "1 h 03 min"),
])  # fmt: skip
def test_durations_read_as_a_person_says_them(seconds: float | None, said: str) -> None:
    assert words.duration(seconds) == said


@pytest.mark.parametrize(("ago", "said"), [
    (0, "just now"), (44, "just now"), (46, "1 min ago"), (3569, "59 min ago"), (3571, "1 h ago"),
    (84_599, "23 h ago"), (84_601, "1 d ago"), (29 * 86_400, "29 d ago"), (31 * 86_400, "2026-10-24"),
])  # fmt: skip
def test_times_are_relative_until_they_are_old(ago: int, said: str) -> None:
    assert words.relative(NOW - timedelta(seconds=ago), NOW) == said


def test_counts_agree_with_their_nouns() -> None:
    assert words.count(1, "file") == "1 file"
    assert words.count(1204, "file") == "1,204 files"
    assert words.count(0, "row") == "0 rows"
    assert words.count(20_000) == "20,000"


@pytest.mark.parametrize(("size_bytes", "limit", "word"), [
    (134_999, 150_000, "fits"), (135_000, 150_000, "close"), (150_000, 150_000, "close"), (150_001, 150_000, "over"),
    (9_000_000, None, "no limit"),
])  # fmt: skip
def test_a_weight_is_judged_at_its_limit(size_bytes: int, limit: int | None, word: str) -> None:
    assert words.weight(size_bytes, limit).word == word


def test_done_with_failed_files_looks_like_a_warning() -> None:
    assert words.badge("done", 0) == words.STATES["done"]
    assert words.badge("done", 64).word == "done"
    assert words.badge("done", 64).tone != words.STATES["done"].tone
    assert words.badge("running", 64) == words.STATES["running"]


def test_every_state_has_its_own_word_and_icon() -> None:
    assert tuple(words.STATES) == STATES
    assert all(words.badge(state).word == state for state in STATES)
    assert len({words.badge(state).icon for state in STATES}) == len(STATES)
