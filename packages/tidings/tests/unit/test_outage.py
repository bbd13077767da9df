"""Outage: when failures pause a subscription, and what a probe costs."""

from tidings.consuming.outage import LONGEST_PAUSE, Outage


def failing(outage: Outage, events: int, now: float = 0.0) -> None:
    for event in range(events):
        outage.outcome([event], False, now)


def test_different_events_in_a_row_begin_it() -> None:
    outage = Outage(20)
    failing(outage, 19)
    assert not outage.on
    assert outage.outcome([19], False, 0.0)
    assert outage.on
    assert outage.wait(0.0) == 1.0
    assert outage.wait(1.0) == 0.0


def test_one_event_that_keeps_failing_is_no_outage() -> None:
    outage = Outage(20)
    for _ in range(1000):
        outage.outcome([7], False, 0.0)
    assert not outage.on


def test_a_success_between_is_no_outage() -> None:
    outage = Outage(20)
    for event in range(1000):
        outage.outcome([event], event % 10 == 9, 0.0)
    assert not outage.on


def test_a_success_ends_it() -> None:
    outage = Outage(3)
    failing(outage, 3)
    assert outage.outcome([], True, 5.0)
    assert not outage.on
    assert outage.wait(5.0) == 0


def test_probes_wait_longer_and_longer_and_one_in_four_counts() -> None:
    outage = Outage(3)
    failing(outage, 3)
    now, pauses, counted = 0.0, [], 0
    for probe in range(40):
        wait = outage.wait(now)
        pauses.append(wait)
        now += wait
        counted += outage.counts
        outage.outcome([100 + probe], False, now)
    assert pauses[:6] == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0]
    assert max(pauses) == LONGEST_PAUSE
    assert counted == 10


def test_failures_before_the_probe_is_due_do_not_lengthen_the_pause() -> None:
    outage = Outage(3)
    failing(outage, 3)
    for event in range(10):
        outage.outcome([event], False, 0.5)
    assert outage.wait(0.0) == 1.0


def test_none_never_pauses() -> None:
    outage = Outage(None)
    failing(outage, 10_000)
    assert not outage.on
