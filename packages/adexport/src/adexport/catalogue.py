"""What exports are made from: designs (samples and own ones), feeds, uploaded pictures, networks."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, cast

import msgspec

from adexport.arguments import in_parts, microseconds, numbered
from adexport.assets.pictures import clean_picture
from adexport.designs import Design, bundled_asset, parse_design
from adexport.errors import AdExportError, DesignError
from adexport.feeds import Feed, parse_feed
from adexport.networks import Network
from adexport.ports import FileStore
from tidings import parse_json

if TYPE_CHECKING:
    from adexport.designs import Sample
    from tidings import Service

_LOG = logging.getLogger("adexport.catalogue")
_KEEP_DESIGN = """INSERT INTO adexport_design (name, title, document, digest, created_us) VALUES ($1, $2, $3, $4, $5)
 ON CONFLICT (name) DO NOTHING"""
_KEEP_FEED = """INSERT INTO adexport_feed (id, filename, columns, row_count, bytes, created_us)
 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (id) DO NOTHING"""
_KEEP_ASSET = """INSERT INTO adexport_asset (digest, media_type, width, height, bytes, created_us)
 VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT (digest) DO NOTHING"""


class UnknownError(AdExportError):
    """A design, feed or export of this name does not exist."""

    retryable = False


class NameTakenError(AdExportError):
    """Another design has this name already."""

    retryable = False


class StoredDesign(msgspec.Struct, frozen=True, kw_only=True):
    """A design with its document (the JSON as written) and its sample feed, if it has one."""

    design: Design
    document: dict[str, Any]
    sample: bool
    feed_csv: bytes | None = None


class DesignSummary(msgspec.Struct, frozen=True, kw_only=True):
    """A design as lists show it: `fields` are the feed columns it uses, `sizes` those it suggests ("300x250")."""

    name: str
    title: str
    description: str
    fields: list[str]
    sizes: list[str]
    sample: bool
    digest: str


class FeedSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded feed; `id` is the SHA-256 of its bytes."""

    id: str
    filename: str
    columns: list[str]
    row_count: int


class AssetSummary(msgspec.Struct, frozen=True, kw_only=True):
    """An uploaded picture; designs and feeds name it by `digest` ("sha256:…"). Sizes in pixels and bytes."""

    digest: str
    media_type: str
    width: int
    height: int
    bytes: int


def summarize(stored: StoredDesign) -> DesignSummary:
    """The design as lists show it."""
    design = stored.design
    return DesignSummary(
        name=design.name,
        title=design.title,
        description=design.description,
        fields=design.fields(),
        sizes=[f"{width}x{height}" for width, height in design.sizes],
        sample=stored.sample,
        digest=design.digest,
    )


def sample_designs(samples: Mapping[str, Sample]) -> dict[str, StoredDesign]:
    """The samples with their documents, by name."""
    folder = files("adexport.designs") / "samples"
    texts = [entry.read_bytes() for entry in folder.iterdir() if entry.name.endswith(".json")]
    documents = {parse_design(text).name: cast(dict[str, Any], parse_json(text)) for text in texts}
    return {
        name: StoredDesign(design=sample.design, document=documents[name], sample=True, feed_csv=sample.feed_csv)
        for name, sample in samples.items()
    }


_read_feed = lru_cache(maxsize=16)(parse_feed)


class Catalogue:
    """Designs, feeds and pictures: samples from the package, the rest from the database and the file store."""

    def __init__(
        self,
        service: Service,
        files: FileStore,
        samples: Mapping[str, Sample],
        networks: Mapping[str, Network],
    ) -> None:
        """Opens nothing; `samples` and `networks` are fixed for the life of the process."""
        self._service = service
        self._files = files
        self.networks = networks
        self._samples = sample_designs(samples)

    async def designs(self) -> list[StoredDesign]:
        """The samples, then the own designs, newest first."""
        rows = await self._service.fetch_all(
            "SELECT document FROM adexport_design ORDER BY created_us DESC, name LIMIT 1000"
        )
        return [*self._samples.values(), *(_stored(bytes(row["document"])) for row in rows)]

    async def design(self, name: str) -> StoredDesign:
        """The design of this name. Raises UnknownError."""
        if name in self._samples:
            return self._samples[name]
        document = await self._service.fetch_value("SELECT document FROM adexport_design WHERE name = $1", name)
        if document is None:
            raise UnknownError(f"There is no design named {name[:80]!r}. GET /v1/designs lists those there are.")
        return _stored(bytes(document))

    async def keep_design(self, body: bytes) -> StoredDesign:
        """Check a design document and store it. Raises DesignError or StrictJSONError, and NameTakenError.

        Storing an equal design again changes nothing; a design never changes under its name.
        """
        stored = _stored(body)
        design = stored.design
        known = self._samples.get(design.name)
        if known is None:
            async with self._service.transaction() as tx:
                now = microseconds(tx.now())
                await tx.execute(_KEEP_DESIGN, design.name, design.title, body, design.digest, now)
                row = await tx.fetch_value("SELECT document FROM adexport_design WHERE name = $1", design.name)
            known = _stored(bytes(row))
        if known.design.digest != design.digest:
            raise NameTakenError(f"Another design is named {design.name!r}. Choose another name, such as one with -v2.")
        return known

    async def keep_feed(self, data: bytes, filename: str) -> FeedSummary:
        """Check a CSV feed and store it. Raises FeedError."""
        feed = await asyncio.to_thread(_read_feed, data, filename)
        (digest,) = await self._files.put([data])
        columns = list(feed.columns)
        async with self._service.transaction() as tx:
            encoded = msgspec.json.encode(columns).decode()
            await tx.execute(_KEEP_FEED, digest, filename, encoded, len(feed.rows), len(data), microseconds(tx.now()))
        return FeedSummary(id=digest, filename=filename, columns=columns, row_count=len(feed.rows))

    async def feed(self, feed_id: str) -> Feed:
        """The feed of this id. Raises UnknownError."""
        row = await self._service.fetch_one("SELECT id, filename FROM adexport_feed WHERE id = $1", feed_id)
        if row is None:
            raise UnknownError(f"There is no feed {feed_id[:12]!r}. Upload it with POST /v1/feeds and use its id.")
        data = await self._files.read(row["id"])
        return await asyncio.to_thread(_read_feed, data, row["filename"])

    async def keep_picture(self, data: bytes) -> AssetSummary:
        """Check a picture and store it, written anew. Raises PictureError."""
        picture = await asyncio.to_thread(clean_picture, data)
        (digest,) = await self._files.put([picture.data])
        size = len(picture.data)
        async with self._service.transaction() as tx:
            values = (digest, picture.media_type, picture.width, picture.height, size, microseconds(tx.now()))
            await tx.execute(_KEEP_ASSET, *values)
        return AssetSummary(
            digest=f"sha256:{digest}",
            media_type=picture.media_type,
            width=picture.width,
            height=picture.height,
            bytes=size,
        )

    async def asset_media_type(self, digest: str) -> str:
        """The media type of an uploaded picture. Raises UnknownError."""
        found = await self._service.fetch_value("SELECT media_type FROM adexport_asset WHERE digest = $1", digest)
        if found is None:
            raise UnknownError(f"There is no picture {digest[:12]!r}. Upload it with POST /v1/assets.")
        return str(found)

    async def missing_assets(self, names: Sequence[str]) -> set[str]:
        """Those of `names` ("asset:NAME", "sha256:…") that no picture has."""
        digests = [name.removeprefix("sha256:") for name in names if name.startswith("sha256:")]
        known: set[str] = set()
        for part in in_parts(digests):
            sql = f"SELECT digest FROM adexport_asset WHERE digest IN ({numbered(len(part))})"
            known |= {f"sha256:{row['digest']}" for row in await self._service.fetch_all(sql, *part)}
        return {name for name in names if name not in known and not _bundled(name)}


def _bundled(name: str) -> bool:
    if not name.startswith("asset:"):
        return False
    try:
        bundled_asset(name)
    except KeyError:
        return False
    return True


@lru_cache(maxsize=256)
def _stored(document: bytes) -> StoredDesign:
    return read_design(parse_json(document))


def read_design(document: object) -> StoredDesign:
    """The design that a JSON value from outside describes. Raises DesignError.

    The answer of `GET /v1/designs/{name}`, which holds the document beside a summary, is taken as well.
    """
    if isinstance(document, dict) and "design" in document and "document" in document:
        document = document["document"]
    if not isinstance(document, dict):
        raise DesignError("$", "a design document is a JSON object")
    try:
        design = parse_design(document)
    except AdExportError:
        raise
    except (
        Exception
    ) as error:  # whatever a stranger's document upsets is the document's fault to them, and ours to read
        _LOG.exception("A design document upset its checks")
        raise DesignError("$", f"it cannot be read ({type(error).__name__}); see docs/reference/design.md") from error
    return StoredDesign(design=design, document=document, sample=False)
