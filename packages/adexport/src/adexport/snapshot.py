"""The request of an export as it was when it was made: stored once by content, read by every batch."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """The design document, the fields of every row, and the digests of the uploaded images they name."""

    design: dict[str, Any]
    rows: list[dict[str, str]]
    assets: list[str]

    def encode(self) -> bytes:
        """The stored bytes; equal snapshots give equal bytes."""
        return msgspec.json.encode(self, order="deterministic")


decode_snapshot = msgspec.json.Decoder(Snapshot).decode


def named_digests(design: dict[str, Any], rows: Iterable[dict[str, str]]) -> list[str]:
    """Every `sha256:…` that a design or a field names, sorted: the uploaded images that rendering may need."""
    found = set(_DIGEST.findall(msgspec.json.encode(design).decode()))
    for row in rows:
        found.update(value for value in row.values() if _DIGEST.fullmatch(value))
    return sorted(found)
