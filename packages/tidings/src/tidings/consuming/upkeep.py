"""Letting go of what retention allows: by one worker at a time, now and then, or by an operator."""

from collections.abc import Callable, Sequence

from msgspec import Struct

from tidings.store import Store

AT_ONCE = 5000
"""Admissions or sagas that one transaction forgets at most: a few milliseconds, because everybody may wait for it."""


class Maintained(Struct, frozen=True):
    """What was let go: events by retention class (seconds, as text), and admissions past the horizon.

    `left`: why each change that the next upkeep must make could not be made now.
    """

    dropped: dict[str, int]
    admitted: int
    left: list[str] = []


async def maintain(
    store: Store, *, now: int, horizon: int, keeps: Sequence[str] = (), progress: Callable[[int], None] = lambda n: None
) -> Maintained:
    """Let go of events past their retention and of admissions past the horizon; prepare what the store needs ahead.

    `horizon`: microseconds; a longer one that a service has said counts instead. `keeps`: retention classes to come.
    """
    dropped, left = await store.upkeep(keeps, now, progress)
    while await store.run(lambda statements: statements.forget_sagas(now, AT_ONCE)):
        pass
    before = now - max(horizon, await store.reading.horizon())
    admitted = 0
    while number := await store.run(lambda statements: statements.forget_admitted(before, AT_ONCE)):
        admitted += number
        progress(number)
    return Maintained(dropped, admitted, left)
