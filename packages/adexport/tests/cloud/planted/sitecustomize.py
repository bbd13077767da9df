"""Plants the defect that PLANTED names into a process: with this folder on its PYTHONPATH, it imports this first."""

import os
import uuid

from msgspec.structs import replace


def acknowledge_before_it_landed() -> None:
    """Landing settles what it has received, then writes it down."""
    from tidings.consuming.landing import Landing

    async def land(self, deliveries):
        await self._transport.settle(deliveries)
        arrived = [await self.read(delivery) for delivery in deliveries]
        await self._store.run(lambda statements: self.write(statements, arrived))

    Landing.land = land


def fail_at_the_first_error() -> None:
    """What could not land counts as failed, as BullMQ's own workers have it with one attempt."""
    from tidings.backends.bullmq.queue import Queue, _pack

    def failed(self, job, now_ms, delay_ms):
        options = {
            "token": self._token, "keepJobs": {"count": -1}, "limiter": None, "lockDuration": self._lock_ms,
            "attempts": 1, "maxMetricsSize": "", "fpof": False, "cpof": False, "idof": False, "rdof": False,
        }  # fmt: skip
        keys = [*self._taking, self._key("failed"), self._key(job.id), self._key("metrics:failed"), self.marker]
        return self._call(
            "moveToFinished", keys, job.id, now_ms, "failedReason", "no store", "failed", "", self._start,
            _pack(options),
        )  # fmt: skip

    Queue.delay = failed


def decide_anew() -> None:
    """A worker without a store gives its events new ids, and keeps no outcome."""
    from tidings.consuming.outcomes import Outcomes

    async def find(self, envelope, subscription):
        return None

    async def decide(self, envelope, subscription, attempt, events):
        return [replace(event, id=str(uuid.uuid4())) for event in events]

    Outcomes.find, Outcomes.decide = find, decide


def turn_away_without_s3() -> None:
    """A request whose snapshot cannot be stored now is refused."""
    from adexport import exporting

    class NobodysError(Exception):
        pass

    exporting.StorageError = NobodysError


DEFECTS = {
    "acknowledged before it landed": acknowledge_before_it_landed,
    "failed at the first error": fail_at_the_first_error,
    "decided anew": decide_anew,
    "turned away without S3": turn_away_without_s3,
}

DEFECTS[os.environ["PLANTED"]]()
