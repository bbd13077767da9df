"""What this service reads of what Ad Export says: the names of its events, and only the fields that are counted.

Nothing is imported from Ad Export: the two share these names and fields, and no code. What Ad Export adds is passed by.
"""

from msgspec import Struct

from tidings import Event


class Requested(Event, name="adexport.export.requested", version=1, key="export_id"):
    """Files were asked for: all of an export (round 1), or its failed ones again."""

    export_id: str
    round: int


class File(Struct, frozen=True, kw_only=True):
    """A file that was made; `index` names it within its export."""

    index: int
    format: str


class Generated(Event, name="adexport.ad.generated", version=1, key="export_id"):
    """Files were made. The same may be told twice."""

    export_id: str
    files: list[File]


class Failure(Struct, frozen=True, kw_only=True):
    """A file that could not be made, and a short word for why."""

    index: int
    cause: str


class GenerationFailed(Event, name="adexport.ad.generation-failed", version=1, key="export_id"):
    """Files could not be made in a round."""

    export_id: str
    round: int
    cells: list[Failure]


class Completed(Event, name="adexport.export.completed", version=1, key="export_id"):
    """Every file is made or has failed. `seconds`: since it was asked for."""

    export_id: str
    seconds: float


class Failed(Event, name="adexport.export.failed", version=1, key="export_id"):
    """No file could be made, or the deadline came first: then some of `failed` have no failure of their own."""

    export_id: str
    failed: int


class Cancelled(Event, name="adexport.export.cancelled", version=1, key="export_id"):
    """A person stopped it."""

    export_id: str
