"""One BullMQ queue: its keys, the commands that run BullMQ's scripts on it, and what their replies say."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from tidings.backends.bullmq.link import command
from tidings.backends.bullmq.scripts import Script
from tidings.events import Envelope

_OWN_KEYS = (
    "active", "completed", "delayed", "events", "id", "limiter", "marker", "meta", "paused", "pc", "prioritized",
    "stalled", "stalled-check", "wait", "de", "dn", "failed", "metrics", "priority", "repeat", "waiting-children",
)  # fmt: skip
"""Names under which BullMQ keeps a queue itself; a job's key is made like theirs, from its id."""

_WHOLE = re.compile(r"-?\d+")
_pack = msgspec.msgpack.encode

NEVER = 2**31
"""How often a job may stall before it counts as failed. A job here is only carried into the log, where attempts are
counted and poison is found; failed by its second crash, as BullMQ does by itself, it would be lost to the handlers."""


class Job(Struct):
    """One job as it was taken: what it carries, and what its sender wants kept of it."""

    id: str
    name: str
    body: bytes
    headers: dict[str, str]
    keep: Mapping[str, int]
    attempts: int


class _Options(Struct):
    """What is read of a job's options."""

    attempts: int = 1
    removeOnComplete: bool | int | dict[str, int] | None = None  # noqa: N815  BullMQ's word
    tm: str = ""
    source: str | None = None


class Taken(Struct, frozen=True):
    """What a script handed out: a job, or (for none) the Unix time in ms from which asking again can help, or 0."""

    job: Job | None
    ask_at: float


def refused_id(event_id: str) -> str | None:
    """Return why BullMQ cannot have a job of this id, or None. Node's library refuses the first two itself."""
    if ":" in event_id:
        return f"BullMQ takes no job whose id holds a colon ({event_id}): choose ids without."
    if _WHOLE.fullmatch(event_id):
        return f"BullMQ takes no job whose id is a whole number ({event_id}): choose ids that are not."
    if event_id in _OWN_KEYS:
        return f"BullMQ keeps its own things of a queue under the name {event_id!r}: choose another id."
    return None


def second_id(envelope: Envelope) -> str:
    """Return the job id of an event whose own id is that of a job with another service's event."""
    return f"{envelope.id}@{hashlib.sha256(envelope.source.encode()).hexdigest()[:16]}"


class Queue:
    """Writes commands for one queue. `token` is the name that its locks are held in, `lock_ms` how long."""

    def __init__(
        self, scripts: Mapping[str, Script], prefix: str, name: str, token: str, lock_ms: int, keep: int
    ) -> None:
        self._scripts = scripts
        self._start = f"{prefix}:{name}:"
        self._token = token
        self._lock_ms = lock_ms
        self._keep = {"count": keep}
        self.marker = self._key("marker")
        self._taking = [
            *map(self._key, ("wait", "active", "prioritized", "events", "stalled", "limiter", "delayed", "paused")),
            self._key("meta"), self._key("pc"),
        ]  # fmt: skip
        self._active_options = _pack({"token": token, "lockDuration": lock_ms, "limiter": None})

    def add(self, envelope: Envelope, job_id: str, body: bytes, now_ms: int, attempts: int) -> bytes:
        """Add an event as a job; while a job of that id is there, this changes nothing."""
        options: dict[str, Any] = {"attempts": attempts, "jobId": job_id, "source": envelope.source}
        if attempts > 1:
            options["backoff"] = {"type": "exponential", "delay": 1000}
        if envelope.traceparent:
            # What BullMQ's telemetry for Node writes and reads: the propagation headers as JSON.
            trace = {"traceparent": envelope.traceparent, "tracestate": envelope.tracestate}
            options["tm"] = json.dumps({name: value for name, value in trace.items() if value})
        names = ("wait", "paused", "meta", "id", "completed", "delayed", "active", "events", "marker")
        wrapped = _pack([self._start, job_id, envelope.type, now_ms, None, None, None, None, None])
        return self._call("addStandardJob", map(self._key, names), wrapped, body, _pack(options), now_ms)

    def options_of(self, job_id: str) -> bytes:
        """Ask for the options of a job, from which `is_of` tells whose it is."""
        return command("HGET", self._key(job_id), "opts")

    def is_of(self, reply: bytes | None, source: str) -> bool:
        """Say whether a job carries an event of this source. One that is gone did: it was handled meanwhile."""
        return reply is None or _options(reply).source == source

    def remove(self, job_id: str) -> bytes:
        """Remove a job, whatever became of it, so that it can be added anew; the reply is 0 if a worker is at it."""
        return self._call("removeJob", [self._key(job_id), self._key("repeat")], job_id, "0", self._start)

    def take(self, now_ms: int) -> bytes:
        """Lock the next job and hand it out; delayed jobs that are due come into the queue first."""
        return self._call("moveToActive", [*self._taking, self.marker], self._start, now_ms, self._active_options)

    def complete(self, job: Job, now_ms: int, *, fetch: bool) -> bytes:
        """Complete a job that is locked by us; with `fetch` the next one is taken in the same step."""
        options = {
            "token": self._token, "keepJobs": job.keep, "limiter": None, "lockDuration": self._lock_ms,
            "attempts": job.attempts, "maxMetricsSize": "", "fpof": False, "cpof": False, "idof": False, "rdof": False,
        }  # fmt: skip
        keys = [*self._taking, self._key("completed"), self._key(job.id), self._key("metrics:completed"), self.marker]
        return self._call(
            "moveToFinished", keys, job.id, now_ms, "returnvalue", "null", "completed", "1" if fetch else "",
            self._start, _pack(options),
        )  # fmt: skip

    def give_back(self, job: Job) -> bytes:
        """Put a job that is locked by us in front of the queue."""
        names = ("active", "wait", "stalled", "paused", "meta", "limiter", "prioritized", "marker", "events")
        return self._call("moveJobFromActiveToWait", map(self._key, names), job.id, self._token, self._key(job.id))

    def delay(self, job: Job, now_ms: int, delay_ms: int) -> bytes:
        """Let a job that is locked by us come again when so much time has passed; no attempt is counted."""
        names = ("marker", "active", "prioritized", "delayed", job.id, "events", "meta", "stalled", "wait", "limiter")
        keys = [*map(self._key, names), self._key("pc")]
        return self._call("moveToDelayed", keys, self._start, now_ms, job.id, self._token, delay_ms, "1", "", "0")

    def extend(self, jobs: Sequence[Job]) -> bytes:
        """Renew the locks of jobs; the reply names those whose lock is somebody else's or gone."""
        tokens, ids = _pack([self._token] * len(jobs)), _pack([job.id for job in jobs])
        return self._call("extendLocks", [self._key("stalled")], self._start, tokens, ids, self._lock_ms)

    def recover(self, now_ms: int, every_ms: int) -> bytes:
        """Put jobs without a lock that were seen active by the last look back into the queue; one look per interval."""
        names = ("stalled", "wait", "active", "stalled-check", "meta", "paused", "marker", "events", "repeat")
        return self._call("moveStalledJobsToWait", map(self._key, names), NEVER, self._start, now_ms, every_ms)

    def lengths(self) -> list[bytes]:
        """Count the jobs that can be taken now, without a priority and with one."""
        return [command("LLEN", self._key("wait")), command("ZCARD", self._key("prioritized"))]

    def taken(self, reply: Any, now_ms: int) -> Taken:
        """Read the reply of `take`, or of `complete` with `fetch`."""
        if not isinstance(reply, list):
            return Taken(None, 0)
        fields, job_id, limited_ms, next_ms = reply
        if fields:
            return Taken(self._job(job_id.decode(), fields), 0)
        return Taken(None, now_ms + limited_ms if limited_ms else float(next_ms))

    def _job(self, job_id: str, fields: list[bytes]) -> Job:
        found = dict(zip(fields[::2], fields[1::2], strict=True))
        options = _options(found.get(b"opts", b"{}"))
        name = found.get(b"name", b"").decode()
        headers = {"name": name, **_trace(options.tm)}
        return Job(job_id, name, found.get(b"data", b""), headers, self._kept(options), options.attempts)

    def _kept(self, options: _Options) -> Mapping[str, int]:
        """Return what stays of completed jobs: what the sender said, as in Node's library, else our own number."""
        wanted = options.removeOnComplete
        if wanted is None:
            return self._keep
        if isinstance(wanted, bool):
            return {"count": 0 if wanted else -1}
        return {"count": wanted} if isinstance(wanted, int) else wanted

    def _key(self, name: str) -> str:
        return self._start + name

    def _call(self, name: str, keys: Any, *arguments: str | bytes | int) -> bytes:
        script = self._scripts[name]
        return command("EVALSHA", script.sha, script.keys, *keys, *arguments)


def _options(document: bytes) -> _Options:
    """Read a job's options; those that nobody can read are the usual ones."""
    try:
        return msgspec.json.decode(document, type=_Options)
    except msgspec.MsgspecError:
        return _Options()


def _trace(metadata: str) -> dict[str, str]:
    """Return the trace headers in a job's telemetry metadata; what is not readable is none."""
    try:
        found = msgspec.json.decode(metadata or "{}", type=dict[str, Any])
    except msgspec.MsgspecError:
        return {}
    return {name: found[name] for name in ("traceparent", "tracestate") if isinstance(found.get(name), str)}
