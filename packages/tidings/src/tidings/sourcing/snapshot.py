"""Snapshots: a state kept now and then, so that a long stream is not read from its beginning each time."""

import logging
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import msgspec

from tidings.errors import EventDefinitionError
from tidings.rows import SnapshotRow

S = TypeVar("S")
log = logging.getLogger("tidings")


@dataclass(frozen=True)
class Snapshots(Generic[S]):
    """When a decider keeps its state, and how: after `every` events more than the last one it kept.

    `state` is the class of the state, of a type that JSON can carry. `version` is counted up whenever its fields, or
    what `evolve` makes of the events, change: a state of another version is ignored, and written anew.
    """

    state: type[S]
    every: int
    version: int = 1
    _decoder: "msgspec.json.Decoder[S]" = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every < 1 or self.version < 1:
            raise EventDefinitionError(
                f"Snapshots(every={self.every}, version={self.version}): both count from 1; leave snapshots out "
                "to keep none."
            )
        object.__setattr__(self, "_decoder", msgspec.json.Decoder(self.state))

    def read(self, row: SnapshotRow | None) -> tuple[S, int] | None:
        """Return the state of a row and the stream's version then; None if there is none that this class can read."""
        if row is None or row.state_version != self.version:
            return None
        try:
            return self._decoder.decode(row.state), row.stream_version
        except msgspec.MsgspecError as error:
            log.warning(
                "The snapshot of stream %s does not fit %s version %s and is ignored; count its version up: %s",
                row.stream, self.state.__qualname__, self.version, error,
            )  # fmt: skip
            return None

    def row(self, stream: str, decider: str, state: S, stream_version: int, now: int) -> SnapshotRow:
        """Return the row that keeps a state."""
        return SnapshotRow(stream, decider, self.version, stream_version, now, msgspec.json.encode(state))
