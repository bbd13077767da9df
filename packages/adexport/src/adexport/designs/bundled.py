"""What ships with Ad Export: sample designs, their feeds, and the pictures that they name as `asset:NAME`."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from adexport.designs.parsing import Design, parse_design

_FOLDER = Path(__file__).parent / "samples"
_PICTURES = {path.stem: path for path in sorted((_FOLDER / "images").iterdir())}


@dataclass(frozen=True, slots=True)
class Sample:
    """A design with a feed made for it: CSV in UTF-8 with a header row."""

    design: Design
    feed_csv: bytes


def load_samples() -> dict[str, Sample]:
    """The sample designs by name, in the order in which they are shown."""
    samples = (Sample(parse_design(path.read_bytes()), path.with_suffix(".csv").read_bytes()) for path in _designs())
    return {sample.design.name: sample for sample in samples}


def _designs() -> list[Path]:
    return sorted(_FOLDER.glob("*.json"))


@lru_cache(maxsize=64)
def bundled_asset(name: str) -> bytes:
    """The bytes of a bundled picture by `asset:NAME` or plain NAME. Raises KeyError when there is none."""
    return _PICTURES[name.removeprefix("asset:")].read_bytes()
