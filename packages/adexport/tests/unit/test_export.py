"""The rules of an export's life: how it ends, what its timer does, when it may be cancelled or retried."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from adexport.export import (
    FIRST_CHECK,
    LONGEST_DEADLINE,
    SHORTEST_DEADLINE,
    Check,
    NotNowError,
    Standing,
    State,
    check,
    deadline,
    ending,
    next_check,
    require_cancellable,
    require_retryable,
)

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


def standing(state=State.RUNNING, total=10, done=0, failed=0, round=1):
    return Standing(state=state, round=round, total=total, done=done, failed=failed, deadline=NOW + timedelta(hours=1))


@pytest.mark.parametrize(
    ("done", "failed", "end"),
    [(0, 0, None), (9, 0, None), (10, 0, State.DONE), (9, 1, State.DONE), (0, 10, State.DEAD), (0, 9, None)],
)
def test_an_export_ends_when_no_file_is_missing(done, failed, end):
    assert ending(standing(done=done, failed=failed)) is end


@pytest.mark.parametrize("state", [State.DONE, State.DEAD, State.CANCELLED])
def test_what_is_over_does_not_end_again(state):
    assert ending(standing(state, done=10)) is None


def test_the_timer_asks_again_only_when_nothing_arrived():
    assert check(standing(done=3), round=1, settled_before=3, now=NOW) is Check.ASK_AGAIN
    assert check(standing(done=3), round=1, settled_before=2, now=NOW) is Check.WAIT
    assert check(standing(failed=3), round=1, settled_before=2, now=NOW) is Check.WAIT


def test_the_timer_gives_up_at_the_deadline_even_when_files_arrive():
    late = NOW + timedelta(hours=1)
    assert check(standing(done=3), round=1, settled_before=0, now=late) is Check.GIVE_UP


def test_the_timer_of_an_older_round_or_of_an_ended_export_does_nothing():
    late = NOW + timedelta(hours=2)
    assert check(standing(round=2), round=1, settled_before=0, now=late) is Check.IGNORE
    assert check(standing(State.CANCELLED), round=1, settled_before=0, now=late) is Check.IGNORE


def test_the_checks_reach_the_deadline_exactly():
    at, end, steps = NOW, NOW + timedelta(seconds=95), 0
    while at < end:
        at, steps = next_check(at, end), steps + 1
    assert (at, steps) == (end, 4)
    assert next_check(NOW, NOW + timedelta(days=1)) == NOW + FIRST_CHECK


@given(st.floats(min_value=0, max_value=1e9))
def test_every_export_has_a_deadline_within_bounds(estimate):
    wait = deadline(NOW, estimate) - NOW
    assert SHORTEST_DEADLINE <= wait <= LONGEST_DEADLINE
    assert wait >= min(timedelta(seconds=estimate), LONGEST_DEADLINE)


def test_only_an_active_export_can_be_cancelled():
    require_cancellable(standing(State.PENDING))
    require_cancellable(standing(State.RUNNING))
    for state in (State.DONE, State.DEAD, State.CANCELLED):
        with pytest.raises(NotNowError, match="nothing left to cancel"):
            require_cancellable(standing(state))


def test_only_an_export_that_is_over_and_incomplete_can_be_retried():
    require_retryable(standing(State.DONE, done=9, failed=1))
    require_retryable(standing(State.DEAD, failed=10))
    require_retryable(standing(State.CANCELLED, done=2))
    with pytest.raises(NotNowError, match="still running"):
        require_retryable(standing(State.RUNNING))
    with pytest.raises(NotNowError, match="nothing to retry"):
        require_retryable(standing(State.DONE, done=10))


def test_what_nobody_answers_is_asked_for_ever_less_often() -> None:
    end = NOW + timedelta(days=1)
    waits = [next_check(NOW, end, asked=asked) - NOW for asked in range(12)]
    assert waits[:3] == [FIRST_CHECK, 2 * FIRST_CHECK, 4 * FIRST_CHECK]
    assert max(waits) == waits[-1] == waits[7] < timedelta(hours=2)
    assert next_check(NOW, NOW + FIRST_CHECK, asked=3) == NOW + FIRST_CHECK
