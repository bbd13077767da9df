"""Archives: the same bytes for the same files, one file in memory, a manifest that can be trusted and opened."""

import csv
import hashlib
import io
import json
import struct
import tracemalloc
import zipfile

import msgspec
import pytest

from adexport.archive import ArchiveError, Entry, manifest_csv, manifest_json, stream_archive, write_archive
from adexport.naming import NamingError

FILES = {"b/two.png": b"\x89PNG two", "a-one.jpg": b"\xff\xd8 one", "ü.webp": b"RIFF three"}


def entry(file: str, data: bytes = b"", **values) -> Entry:
    digest = hashlib.sha256(data).hexdigest() if data else ""
    standard = {"row": 1, "size": "300x250", "format": "png", "bytes": len(data), "sha256": digest}
    return Entry(file=file, **{**standard, **values})


ENTRIES = [entry(name, data) for name, data in FILES.items()]


def made(entries=ENTRIES, files=FILES) -> bytes:
    return b"".join(stream_archive(entries, lambda one: files[one.file]))


def test_the_archive_holds_every_file_and_its_manifest():
    failed = entry("gone.png", verdict="failed", reason="the logo is missing")
    archive = zipfile.ZipFile(io.BytesIO(made([*ENTRIES, failed])))
    assert archive.testzip() is None
    assert archive.namelist() == ["manifest.csv", "manifest.json", *sorted(FILES)]
    assert {name: archive.read(name) for name in FILES} == FILES
    listed = json.loads(archive.read("manifest.json"))
    assert [line["file"] for line in listed] == ["a-one.jpg", "b/two.png", "gone.png", "ü.webp"]
    assert listed[2] == msgspec.to_builtins(failed)
    rows = list(csv.DictReader(io.StringIO(archive.read("manifest.csv").decode())))
    assert [row["sha256"] for row in rows] == [line["sha256"] for line in listed]
    assert rows[2]["verdict"] == "failed"


def test_the_same_files_give_the_same_bytes_in_any_order():
    assert made() == made(ENTRIES[::-1])


def test_headers_carry_sizes_so_that_streaming_unpackers_can_read_it():
    data, position, names = made(), 0, []
    while data[position : position + 4] == b"PK\x03\x04":
        flags, _, _, _, crc, packed, size, name, extra = struct.unpack("<HHHHIIIHH", data[position + 6 : position + 30])
        assert not flags & 0x08
        assert crc
        assert packed == size
        names.append(data[position + 30 : position + 30 + name].decode())
        position += 30 + name + extra + size
    assert len(names) == len(FILES) + 2


def test_one_file_at_a_time_is_in_memory_and_the_target_needs_no_seeking():
    class Sink(io.RawIOBase):
        length = 0

        def writable(self):
            return True

        def write(self, data):
            self.length += len(data)
            return len(data)

    content = b"x" * 1_000_000
    entries = [entry(f"{n}.png", content) for n in range(60)]
    sink = Sink()
    tracemalloc.start()
    length = write_archive(sink, entries, lambda _: bytes(content))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert length == sink.length > 60_000_000
    assert peak < 6_000_000


def test_a_stored_file_that_changed_is_noticed():
    with pytest.raises(ArchiveError, match=r"'a-one\.jpg' is not the one"):
        made(files={**FILES, "a-one.jpg": b"other"})


@pytest.mark.parametrize("name", ["../x.png", "/x.png", "a\\b.png", "C:x.png", "a\n.png", "50%.png"])
def test_unsafe_names_are_refused_before_the_first_byte(name):
    with pytest.raises(NamingError):
        next(stream_archive([entry(name, b"1")], lambda _: b"1"))


@pytest.mark.parametrize("name", ["A-ONE.jpg", "manifest.csv", "Manifest.JSON"])
def test_a_name_is_given_once(name):
    with pytest.raises(ArchiveError, match="Two files would be named"):
        next(stream_archive([*ENTRIES, entry(name, b"1")], lambda _: b"1"))


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n"])
def test_spreadsheets_find_no_formula_in_the_manifest(start):
    text = manifest_csv([entry("x.png", reason=f"{start}HYPERLINK(1)")]).decode()
    (row,) = csv.DictReader(io.StringIO(text, newline=""))
    assert row["reason"] == f"'{start}HYPERLINK(1)"


def test_an_empty_export_has_an_empty_manifest():
    assert json.loads(manifest_json([])) == []
    assert zipfile.ZipFile(io.BytesIO(made([]))).namelist() == ["manifest.csv", "manifest.json"]
