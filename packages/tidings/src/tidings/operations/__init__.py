"""What an operator asks of a store and does to it: functions over the port, for the command line and for pages alike.

Every time is in microseconds since 1970 UTC, and `now` is given by the caller.
"""

from tidings.operations.dead_letters import DeadLetter, Filter, Outcome, discard, letters, redrive
from tidings.operations.lock import Difference, declared, differences, lock_from_json, lock_to_json
from tidings.operations.overview import Status, SubscriptionStatus, WorkerStatus, status, tail
from tidings.operations.projections import (
    ProjectionStatus,
    Replay,
    drop,
    pause_projection,
    plan_replay,
    projections,
    rebuild,
    replay,
    resume_projection,
    swap,
)
from tidings.operations.sagas import UNFINISHED, SagaDetail, cancel_saga, resume_saga, saga, sagas, skip_compensation
from tidings.operations.subscriptions import forget, narrow, pause, resume
from tidings.operations.upkeep import DAY, Maintained, Migration, maintain, migrate, migrations
from tidings.operations.whereabouts import NOT_ITS_OWN, Place, Whereabouts, where

__all__ = [
    "DAY",
    "NOT_ITS_OWN",
    "UNFINISHED",
    "DeadLetter",
    "Difference",
    "Filter",
    "Maintained",
    "Migration",
    "Outcome",
    "Place",
    "ProjectionStatus",
    "Replay",
    "SagaDetail",
    "Status",
    "SubscriptionStatus",
    "Whereabouts",
    "WorkerStatus",
    "cancel_saga",
    "declared",
    "differences",
    "discard",
    "drop",
    "forget",
    "letters",
    "lock_from_json",
    "lock_to_json",
    "maintain",
    "migrate",
    "migrations",
    "narrow",
    "pause",
    "pause_projection",
    "plan_replay",
    "projections",
    "rebuild",
    "redrive",
    "replay",
    "resume",
    "resume_projection",
    "resume_saga",
    "saga",
    "sagas",
    "skip_compensation",
    "status",
    "swap",
    "tail",
    "where",
]
