"""A rendering process: reads jobs from standard input, writes results to standard output, touches nothing else.

A frame is four bytes of length (big-endian) and MessagePack. The first frame it writes is its greeting.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from itertools import groupby
from pathlib import Path
from typing import BinaryIO, cast

import msgspec

from adexport.designs import Design, bundled_asset, parse_design
from adexport.errors import AdExportError
from adexport.events import CellOrder
from adexport.ports import Rendered, RenderJob
from adexport.rendering import Raster, render
from adexport.rendering.encoding import FormatName
from adexport.rendering.fitting import fit

_MOST_OPEN_FILES = 64


def make(job: RenderJob, clock: Callable[[], float]) -> Iterator[Rendered]:
    """Render each cell of `job`: draw once per row and size, encode per format. One bad cell does not stop the rest.

    `clock` gives seconds and measures the work.
    """
    design = _design(job.design)
    for (row, width, height), cells in groupby(job.cells, key=lambda cell: (cell.row, cell.width, cell.height)):
        group = list(cells)
        began = clock()
        try:
            raster = render(design, width, height, job.rows[row], _resolver(job.assets))
        except MemoryError:
            raise  # nothing is sure after it: end, and let the next process try
        except Exception as error:
            yield from (_failed(cell, _cause(error), _reason(error), clock() - began) for cell in group)
            continue
        drawn = (clock() - began) / len(group)
        for cell in group:
            yield _encode(raster, cell, drawn, clock)


def _encode(raster: Raster, cell: CellOrder, drawn: float, clock: Callable[[], float]) -> Rendered:
    began = clock()
    try:
        fitted = fit(raster, cast(FormatName, cell.format), cell.max_bytes, cell.quality)
    except MemoryError:
        raise
    except Exception as error:
        return _failed(cell, "render", _reason(error), drawn)
    seconds = drawn + clock() - began
    if not fitted.fits:
        reason = (
            f"The smallest {cell.format} of {cell.width}x{cell.height} is {len(fitted.data)} bytes, over the limit of"
            f" {cell.max_bytes}. Use a simpler picture, another format or a larger limit."
        )
        return _failed(cell, "cannot_fit", reason, seconds, fitted.data)
    quality = f"quality {fitted.quality}" if fitted.quality else f"{fitted.colours} colours" if fitted.colours else ""
    return Rendered(
        index=cell.index, seconds=seconds, data=fitted.data, verdict=fitted.verdict, quality=quality or "lossless"
    )


def _cause(error: Exception) -> str:
    """What is known to be wrong with the design or the row stays wrong however often it is tried."""
    return "cannot_draw" if isinstance(error, AdExportError) and not error.retryable else "render"


def _reason(error: Exception) -> str:
    known = isinstance(error, AdExportError)
    return str(error) if known else f"The renderer failed with {type(error).__name__}: {error}. Please report it."


def _failed(cell: CellOrder, cause: str, reason: str, seconds: float, best: bytes | None = None) -> Rendered:
    verdict = "cannot_fit" if best is not None else ""
    size = len(best) if best is not None else None
    return Rendered(
        index=cell.index, seconds=seconds, data=best, verdict=verdict, cause=cause, reason=reason, best_bytes=size
    )


@lru_cache(maxsize=16)
def _design(document: bytes) -> Design:
    return parse_design(document)


@lru_cache(maxsize=64)
def _asset_bytes(path: str) -> bytes:
    return Path(path).read_bytes()


def _resolver(assets: dict[str, str]) -> Callable[[str], bytes]:
    """Uploaded images by digest from the job's local files, bundled ones by name; nothing else can be named."""

    def resolve(name: str) -> bytes:
        return _asset_bytes(assets[name]) if name in assets else bundled_asset(name)

    return resolve


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame, or None at the end of the stream."""
    head = stream.read(4)
    return stream.read(int.from_bytes(head, "big")) if len(head) == 4 else None


def write_frame(stream: BinaryIO, payload: bytes) -> None:
    """Write one frame and flush it."""
    stream.write(len(payload).to_bytes(4, "big") + payload)
    stream.flush()


def _confine(memory_bytes: int) -> None:
    """Give up what a renderer never needs: more memory, core dumps, writing files, many open files."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_MOST_OPEN_FILES, _MOST_OPEN_FILES))
    if sys.platform == "linux":  # elsewhere address space is not limited; the parent looks at the resident size
        resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))


def _resident_bytes() -> int:
    """Peak resident size of this process (Linux counts in KiB, macOS in bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def main() -> None:
    """Serve jobs until standard input ends. The only argument is the memory limit in bytes."""
    jobs = sys.stdin.buffer
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints must not end up between two frames
    _confine(int(sys.argv[1]))
    write_frame(results, json.dumps({"pid": os.getpid()}).encode())
    encoder, decoder = msgspec.msgpack.Encoder(), msgspec.msgpack.Decoder(RenderJob)
    while (frame := read_frame(jobs)) is not None:
        rendered = list(make(decoder.decode(frame), time.perf_counter))
        write_frame(results, encoder.encode((_resident_bytes(), rendered)))


if __name__ == "__main__":
    try:
        main()
    except MemoryError:
        sys.exit("A rendering process reached its memory limit and ended; another one takes its place.")
