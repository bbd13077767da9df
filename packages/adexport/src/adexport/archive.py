"""All files of an export as one zip with its manifest, made piece by piece: the same bytes for the same files."""

import csv
import hashlib
import io
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import BinaryIO, Final

import msgspec

from adexport.errors import AdExportError
from adexport.naming import check_path

EPOCH: Final = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: the earliest that zip can say, so that an archive does not depend on when it is made."""
UNIX: Final = 3
MODE: Final = 0o100644 << 16
FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""A spreadsheet may run a cell that starts so (OWASP, CSV injection)."""
MANIFEST_CSV: Final = "manifest.csv"
MANIFEST_JSON: Final = "manifest.json"


class ArchiveError(AdExportError):
    """An archive cannot be made: two entries with one name, or a file that is not what the manifest says."""

    retryable = False


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the manifest, and one file unless `sha256` is empty (a file that could not be made).

    `file` is its path in the archive; `row` the feed row, from 1; `size` as `300x250`; `bytes` its length;
    `verdict` is `ok`, `cannot_fit` or `failed`, and `reason` says why when it is not `ok`.
    """

    file: str
    row: int
    size: str
    format: str
    bytes: int = 0
    sha256: str = ""
    network: str = ""
    verdict: str = "ok"
    reason: str = ""


def stream_archive(entries: Iterable[Entry], read: Callable[[Entry], bytes]) -> Iterator[bytes]:
    """Yield a zip in pieces of about one file each: at most one file is in memory.

    Entries are sorted by name, stored without compression (the formats are compressed already), and dated 1980; the
    manifest comes first. `read` gives the bytes of an entry, which are checked against its SHA-256. Raises
    NamingError for a path that is not safe, and ArchiveError for repeated names (letter case ignored) and for bytes
    that do not match. Names are checked before the first piece is yielded.
    """
    ordered = sorted(entries, key=lambda entry: (entry.file, entry.row, entry.size, entry.format))
    files = [entry for entry in ordered if entry.sha256]
    _check_names(files)
    window = _Window()
    with zipfile.ZipFile(window, "w", zipfile.ZIP_STORED) as archive:
        for name, data in ((MANIFEST_CSV, manifest_csv(ordered)), (MANIFEST_JSON, manifest_json(ordered))):
            archive.writestr(_info(name), data)
            yield window.drain()
        for entry in files:
            archive.writestr(_info(entry.file), _checked(entry, read(entry)))
            yield window.drain()
    yield window.drain()


def write_archive(out: BinaryIO, entries: Iterable[Entry], read: Callable[[Entry], bytes]) -> int:
    """Write the zip of `stream_archive` to a binary file, which need not be seekable; returns its length in bytes."""
    return sum(out.write(piece) for piece in stream_archive(entries, read))


def archive_name(entries: Sequence[Entry]) -> str:
    """A name that only an archive of the same bytes has, such as `3f….zip`: of the way of making and all entries."""
    ordered = sorted(entries, key=lambda entry: (entry.file, entry.row, entry.size, entry.format))
    return f"{hashlib.sha256(b'1' + manifest_json(ordered)).hexdigest()}.zip"


def manifest_json(entries: Sequence[Entry]) -> bytes:
    """The manifest as a JSON array, exact values, one entry a line."""
    lines = b",\n".join(msgspec.json.encode(entry) for entry in entries)
    return b"[\n" + lines + b"\n]\n" if entries else b"[]\n"


def manifest_csv(entries: Sequence[Entry]) -> bytes:
    """The manifest as UTF-8 CSV (RFC 4180). A cell that a spreadsheet could run as a formula starts with `'`."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow(Entry.__struct_fields__)
    for entry in entries:
        writer.writerow([defuse(value) for value in msgspec.structs.astuple(entry)])
    return out.getvalue().encode("utf-8")


def defuse(value: str | int) -> str | int:
    """Put `'` before text that a spreadsheet could take for a formula; numbers and other text stay as they are."""
    return f"'{value}" if isinstance(value, str) and value.startswith(FORMULA_STARTS) else value


def _info(name: str) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, EPOCH)
    info.create_system = UNIX
    info.external_attr = MODE
    return info


def _checked(entry: Entry, data: bytes) -> bytes:
    if hashlib.sha256(data).hexdigest() != entry.sha256:
        raise ArchiveError(
            f"The stored file for '{entry.file}' is not the one that was made: its SHA-256 differs. Export it again."
        )
    return data


def _check_names(files: Iterable[Entry]) -> None:
    seen = {MANIFEST_CSV, MANIFEST_JSON}
    for entry in files:
        check_path(entry.file)
        folded = entry.file.casefold()
        if folded in seen:
            raise ArchiveError(f"Two files would be named '{entry.file}' in the archive. Name them apart.")
        seen.add(folded)


class _Window(io.RawIOBase):
    """A file that keeps only what was written since the last `drain`.

    zipfile goes back to write an entry's checksum into its header. Given a file that cannot seek, it would write the
    checksum behind the data, which several unpackers refuse for stored entries; a window over the entry avoids that.
    """

    def __init__(self) -> None:
        self._start = 0
        self._buffer = io.BytesIO()

    def drain(self) -> bytes:
        """Take out what has been written."""
        data = self._buffer.getvalue()
        self._start += len(data)
        self._buffer = io.BytesIO()
        return data

    def writable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Within what has not been drained."""
        return True

    def tell(self) -> int:
        """The position in the whole archive."""
        return self._start + self._buffer.tell()

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move within what has not been drained."""
        return self._start + self._buffer.seek(offset - self._start if whence == io.SEEK_SET else offset, whence)

    def write(self, data: object) -> int:
        """Append or overwrite."""
        return self._buffer.write(data)  # type: ignore[arg-type]
