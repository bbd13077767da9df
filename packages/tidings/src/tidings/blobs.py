"""PORT: bytes beside the log: bodies too large for a broker, and what a worker without a store has decided."""

from typing import Protocol


class Blobs(Protocol):
    """Create-only bytes by key: what is under a key never changes. Keys are printable ASCII without spaces, as
    paths are: parts with slashes between, none of them empty or made of dots.

    Every method raises BlobsError, retryable, when the place cannot be reached.
    """

    async def open(self) -> None:
        """Connect; raises ServiceError where the place is not there."""

    async def close(self) -> None:
        """Disconnect. Twice is once."""

    async def create(self, key: str, data: bytes) -> bytes:
        """Write under a key unless something is there, durably; return what is there now: of two, one wins."""

    async def read(self, key: str) -> bytes | None:
        """Return what is under a key, None if nothing is."""
