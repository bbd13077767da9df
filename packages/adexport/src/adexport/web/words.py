"""How figures and states are said to people: the seven state words, weights, sizes, durations, times."""

from datetime import datetime

import msgspec

__all__ = ["STATES", "Badge", "badge", "count", "duration", "relative", "size", "weight"]


class Badge(msgspec.Struct, frozen=True):
    """A word with the icon and the tone that go with it, so that nothing is said by colour alone."""

    word: str
    icon: str
    tone: str


STATES = {
    "pending": Badge("pending", "pending", "still"),
    "running": Badge("running", "running", "running"),
    "waiting to retry": Badge("waiting to retry", "retry", "retry"),
    "parked": Badge("parked", "parked", "parked"),
    "done": Badge("done", "done", "done"),
    "dead": Badge("dead", "dead", "dead"),
    "cancelled": Badge("cancelled", "cancelled", "still"),
}

# From nine tenths of the limit a file is "close": the next edit of the design may push it over.
CLOSE = 0.9


def badge(state: str, failed: int = 0) -> Badge:
    """Return the badge of one of the seven states; KeyError names a state that is not one of them.

    An export that is done although files failed keeps the word and looks like a warning.
    """
    if state == "done" and failed:
        return Badge("done", "warn", "retry")
    return STATES[state]


def weight(size_bytes: int, limit: int | None) -> Badge:
    """Judge a file's weight in bytes against its limit in bytes (None: the network names no limit)."""
    if limit is None:
        return Badge("no limit", "done", "still")
    if size_bytes > limit:
        return Badge("over", "dead", "over")
    if size_bytes >= CLOSE * limit:
        return Badge("close", "warn", "close")
    return Badge("fits", "done", "fits")


def count(number: int, singular: str = "", plural: str | None = None) -> str:
    """Write a whole number with thin separators and its noun: 1,204 files."""
    noun = singular if number == 1 else (plural or f"{singular}s")
    return f"{number:,} {noun}" if singular else f"{number:,}"


def size(size_bytes: float) -> str:
    """Write a number of bytes in units of 1000, as the ad networks count: 950 B, 9.1 kB, 142 kB."""
    value = float(size_bytes)
    for unit in ("B", "kB", "MB", "GB"):
        if round(value) < 1000 or unit == "GB":
            break
        value /= 1000
    digits = 1 if unit != "B" and value < 9.95 else 0
    return f"{value:,.{digits}f} {unit}"


def duration(seconds: float | None) -> str:
    """Write seconds as a person would: 40 ms, 0.8 s, 12 s, 2 min 05 s, 1 h 03 min; None becomes a dash."""
    if seconds is None:
        return "–"
    if seconds < 0.0995:
        return f"{round(max(seconds, 0) * 1000)} ms"
    if seconds < 9.95:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def relative(then: datetime, now: datetime) -> str:
    """Write an aware moment relative to another: just now, 5 min ago, 3 h ago, 2 d ago, then the date."""
    seconds = (now - then).total_seconds()
    if seconds < 45:
        return "just now"
    if seconds < 3570:
        return f"{round(seconds / 60)} min ago"
    if seconds < 84600:
        return f"{round(seconds / 3600)} h ago"
    if seconds < 30 * 86400:
        return f"{round(seconds / 86400)} d ago"
    return then.strftime("%Y-%m-%d")
