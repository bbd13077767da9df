"""The claim check: data too large for a broker waits among the blobs, and its envelope says where it is."""

import hashlib
import re

from msgspec.structs import replace

from tidings.blobs import Blobs
from tidings.errors import EnvelopeError
from tidings.events import Envelope

REFERENCE = "dataref"
"""The extension attribute of an envelope whose data is elsewhere (CloudEvents' own name for it)."""

_SCHEME = "blob:"
_KEY = re.compile(r"data/([0-9a-f]{64})")


async def fitted(envelope: Envelope, blobs: Blobs | None, most: int) -> Envelope:
    """Return what travels: where there is a place for it, data over half of the bytes that a broker takes waits there.

    Half, because a transport may have to write it in twice the bytes. Raises BlobsError.
    """
    if blobs is None or len(envelope.data) * 2 <= most:
        return envelope
    return await check_in(envelope, blobs)


async def check_in(envelope: Envelope, blobs: Blobs) -> Envelope:
    """Store an envelope's data under its digest; return the small envelope that travels. Raises BlobsError."""
    key = f"data/{hashlib.sha256(envelope.data).hexdigest()}"
    await blobs.create(key, envelope.data)
    return replace(envelope, data=b"{}", extensions={**envelope.extensions, REFERENCE: f"{_SCHEME}{key}"})


async def redeem(envelope: Envelope, blobs: Blobs | None) -> Envelope:
    """Return an envelope with its data, fetched and verified where it is elsewhere.

    Raises BlobsError while the place cannot be reached, EnvelopeError where the data is not to be had.
    """
    reference = envelope.extensions.get(REFERENCE, "")
    found = _KEY.fullmatch(reference.removeprefix(_SCHEME))
    if not reference.startswith(_SCHEME) or found is None:
        return envelope  # none, or somebody else's: it stays as it is
    what = f"The data of event {envelope.id} is elsewhere ({reference})"
    if blobs is None:
        raise EnvelopeError(f"{what}, and this service has no blobs: give it Service(…, blobs=…), as its sender has.")
    data = await blobs.read(found[0])
    if data is None:
        raise EnvelopeError(f"{what}, and is gone from there: restore it, and send the event again.")
    if hashlib.sha256(data).hexdigest() != found[1]:
        raise EnvelopeError(f"{what}, and is not what its sender stored: its digest differs.")
    kept = {name: value for name, value in envelope.extensions.items() if name != REFERENCE}
    return replace(envelope, data=data, extensions=kept)
