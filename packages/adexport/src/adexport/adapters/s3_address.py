"""The address of a bucket, as ADEXPORT_FILES names it: s3://BUCKET/PREFIX?region=…&endpoint=…"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlsplit

from adexport.settings import PREFIX, SettingsError

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_FOLDER = re.compile(r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*")
_OPTIONS = ("endpoint", "region")


@dataclass(frozen=True)
class Bucket:
    """A part of a bucket: keys begin with `prefix/`, or with nothing. `endpoint` is of another S3 than Amazon's."""

    name: str
    prefix: str = ""
    endpoint: str | None = None
    region: str | None = None

    def key(self, path: str) -> str:
        """The key of a path in this part."""
        return f"{self.prefix}/{path}" if self.prefix else path

    def __str__(self) -> str:
        """As people write it."""
        return f"s3://{self.name}/{self.prefix}".rstrip("/")


def read_bucket(url: str) -> Bucket:
    """The bucket that a URL names. Raises SettingsError."""
    parts = urlsplit(url)
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    prefix = parts.path.strip("/")
    if parts.scheme != "s3" or not _NAME.fullmatch(parts.netloc) or (prefix and not _FOLDER.fullmatch(prefix)):
        raise _wrong("is not of the form s3://BUCKET/PREFIX")
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise _wrong(f"has the option {unknown[0][:40]!r}, and takes only {' and '.join(_OPTIONS)}")
    endpoint = options.get("endpoint") or None
    if endpoint is not None and not re.fullmatch(r"https?://[^/?#@\s]+/?", endpoint):
        raise _wrong("has an endpoint that is not of the form https://HOST:PORT")
    return Bucket(parts.netloc, prefix, endpoint, options.get("region") or None)


def _wrong(what: str) -> SettingsError:
    return SettingsError(
        f"{PREFIX}FILES {what}. Give s3://BUCKET/PREFIX, with ?region=REGION or &endpoint=https://HOST where needed; or"
        " leave it out for the folder files/ in ADEXPORT_DATA."
    )
