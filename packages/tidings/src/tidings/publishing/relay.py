"""Step 3 of publishing: carry the log to a transport, in order by key, at least once."""

from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence

from msgspec.structs import replace

from tidings.blobs import Blobs
from tidings.claims import fitted
from tidings.events import INTERNAL, Envelope
from tidings.points import reach
from tidings.rows import BEHIND, DEAD, REFUSED, RETRY, Held, Record
from tidings.store import Store
from tidings.transport import Refusal, Transport
from tidings.world import World

RETRY_SECONDS = 5
"""Seconds until a refused envelope that may be taken later is sent again."""


class Relay:
    """Sends what one service has published. A refused envelope is held, its key behind it; other keys flow.

    `settle` writes exceptions and progress in one transaction; it is the lanes' own, so that of two relays one commits.
    """

    def __init__(
        self, name: str, source: str, transport: Transport, store: Store, world: World, blobs: Blobs | None = None
    ) -> None:
        self.batch = transport.capabilities.max_batch
        self._name = name
        self._source = source
        self._transport = transport
        self._store = store
        self._world = world
        self._blobs = blobs

    async def send_new(
        self, records: Sequence[Record], settle: Callable[[Sequence[Held], int], Awaitable[None]], *, holding: bool
    ) -> tuple[list[int], bool]:
        """Send new records in order, then settle them.

        Returns the positions of those that the broker may take later, and whether it took any.
        """
        own = [record for record in records if self._goes_out(record.envelope)]
        keys = sorted({record.envelope.key for record in own if record.envelope.key is not None})
        closed = await self._store.reading.closed_keys(self._name, keys) if holding and keys else set()
        behind = [record for record in own if record.envelope.key in closed]
        refused = await self._send([record for record in own if record.envelope.key not in closed])
        held = [self._row(record, BEHIND) for record in behind]
        held += self._held([record for record in own if record.envelope.id in refused], refused)
        reach("relay.sent")
        await settle(held, records[-1].position)
        failed = [row.position for row in held if row.state == RETRY]
        return failed, len(held) < len(records)

    def _goes_out(self, envelope: Envelope) -> bool:
        # Neither what this log tells itself, nor its record of what it has refused: that is nobody else's poison.
        own = envelope.type != REFUSED and not envelope.type.startswith(INTERNAL)
        return own and envelope.source == self._source

    async def send_again(self, record: Record, row: Held) -> Held | None:
        """Send a held record again; return its new row, or None if it was taken.

        What somebody has redriven is sent as new: a broker that has given it up would know it from the first time.
        """
        refused = await self._send([record], again=row.actor is not None)
        reach("relay.sent")
        if not refused:
            return None
        held = self._refused(record, refused[record.envelope.id])
        return replace(held, attempts=row.attempts + 1, actor=row.actor)

    async def _send(self, records: Sequence[Record], *, again: bool = False) -> dict[str, Refusal]:
        most = self._transport.capabilities.max_bytes
        envelopes = [await fitted(record.envelope, self._blobs, most) for record in records]
        refused = await self._transport.send(envelopes, again=again) if envelopes else []
        return {refusal.event_id: refusal for refusal in refused}

    def _held(self, records: Sequence[Record], refused: Mapping[str, Refusal]) -> Iterator[Held]:
        """Return the rows of refused records; what follows another of its key waits behind it."""
        closed: set[str] = set()
        for record in records:
            key = record.envelope.key
            yield self._row(record, BEHIND) if key in closed else self._refused(record, refused[record.envelope.id])
            if key is not None:
                closed.add(key)

    def _refused(self, record: Record, refusal: Refusal) -> Held:
        if not refusal.retryable:
            return replace(self._row(record, DEAD), attempts=1, reason=refusal.reason)
        due = self._world.now() + RETRY_SECONDS * 1_000_000
        return replace(self._row(record, RETRY), attempts=1, reason=refusal.reason, due=due)

    def _row(self, record: Record, state: str) -> Held:
        key = record.envelope.key
        return Held(self._name, record.position, record.lane, key, key is not None, state, updated=self._world.now())
