"""A rendering process keeps its size: resident memory after 2,000 renders beside that after 200, in a real process.

Designs, rows, sizes and formats change all the time, and no headline comes twice, so that every cache fills and turns
over. Linux only: the resident size of another process is read from /proc.
"""

import csv
import io
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import pytest

from adexport.catalogue import StoredDesign, sample_designs
from adexport.designs import load_samples
from adexport.events import CellOrder
from adexport.ports import Rendered, RenderJob
from adexport.rendering_child import read_frame, write_frame

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the resident size is read from /proc")

_SAMPLES = sample_designs(load_samples())
_FORMATS = ("jpeg", "jpeg", "webp", "jpeg", "jpeg", "jpeg", "jpeg", "png", "jpeg", "jpeg")
_FEW, _MANY = 200, 2000
_MOST_GROWTH = 1.1
_PER_JOB = len(_FORMATS)
# Large buffers come and go: what counts is the highest of the last so many jobs.
_WINDOW = 10
_PAGE = os.sysconf("SC_PAGE_SIZE")
_RESULTS = msgspec.msgpack.Decoder(tuple[int, list[Rendered]])


class _Child:
    """A rendering process, spoken to as the pool does."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self._process = process
        self._in, self._out = cast(BinaryIO, process.stdin), cast(BinaryIO, process.stdout)
        assert read_frame(self._out) is not None, "no greeting"

    def render(self, job: RenderJob) -> list[Rendered]:
        write_frame(self._in, msgspec.msgpack.encode(job))
        answer = read_frame(self._out)
        assert answer is not None, "the process ended"
        _, results = _RESULTS.decode(answer)
        return results

    def resident_bytes(self) -> int:
        """What it holds now; what the process itself reports is its peak."""
        return int(Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]) * _PAGE


@contextmanager
def _child() -> Iterator[_Child]:
    command = [sys.executable, "-m", "adexport.rendering_child", "3000000000"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            yield _Child(process)
        finally:
            process.kill()


def _jobs(least: int, most: int) -> Iterator[RenderJob]:
    """Jobs of ten cells without end, in sizes of `least` to `most` pixels."""
    for number in count():
        for at, stored in enumerate(_SAMPLES.values()):
            sizes = [size for size in stored.design.sizes if least <= size[0] * size[1] <= most]
            first = (number * len(_SAMPLES) + at) * _PER_JOB
            chosen = [sizes[(first + step) % len(sizes)] for step in range(_PER_JOB)]
            cells = [
                CellOrder(index=step, key="", row=step, width=w, height=h, format=_FORMATS[step], max_bytes=150_000)
                for step, (w, h) in enumerate(chosen)
            ]
            document = msgspec.json.encode(stored.document)
            yield RenderJob(design=document, rows=dict(enumerate(_rows(stored, number))), cells=cells, assets={})


def _rows(stored: StoredDesign, number: int) -> list[dict[str, str]]:
    """A row for each cell, so that every script's fonts are loaded within the first renders."""
    feed = list(csv.DictReader(io.StringIO((stored.feed_csv or b"").decode())))
    lead = stored.design.lead or ""
    rows = [feed[(number * _PER_JOB + step) % len(feed)] for step in range(_PER_JOB)]
    return [{**row, lead: f"{row[lead]} {number}"} for row in rows]


def _resident_after(least: int, most: int) -> tuple[int, int]:
    """Resident bytes after few and after many renders."""
    rendered, seen = 0, []
    with _child() as child:
        for job in _jobs(least, most):
            results = child.render(job)
            assert not [result.reason for result in results if result.cause == "render"]
            rendered += len(results)
            seen.append(child.resident_bytes())
            if rendered >= _MANY:
                break
    few = _FEW // _PER_JOB
    return max(seen[few - _WINDOW : few]), max(seen[-_WINDOW:])


def test_a_rendering_process_does_not_grow() -> None:
    few, many = _resident_after(0, 40_000)
    assert many <= _MOST_GROWTH * few, f"{few / 1e6:.0f} MB after {_FEW} renders, {many / 1e6:.0f} MB after {_MANY}"


@pytest.mark.soak
@pytest.mark.timeout(1800)
def test_a_rendering_process_does_not_grow_with_large_pictures() -> None:
    few, many = _resident_after(150_000, 2_500_000)
    assert many <= _MOST_GROWTH * few, f"{few / 1e6:.0f} MB after {_FEW} renders, {many / 1e6:.0f} MB after {_MANY}"


def test_what_was_rendered_before_leaves_no_trace_in_the_bytes() -> None:
    """A fresh process and one that has rendered other things give the same files, also when asked again."""
    jobs = [job for job, _ in zip(_jobs(0, 100_000), range(2), strict=False)]
    with _child() as used, _child() as fresh:
        for job, _ in zip(_jobs(20_000, 200_000), range(8), strict=False):
            used.render(job)
        for job in jobs:
            expected = [file.data for file in used.render(job)]
            assert all(expected)
            assert [file.data for file in fresh.render(job)] == expected
            assert [file.data for file in used.render(job)] == expected
