"""BullMQ's own Redis scripts, read from the installed `bullmq` package without importing it."""

import hashlib
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from msgspec import Struct

from tidings.errors import ServiceError

KEYS = {
    "addStandardJob": 9,
    "moveToActive": 11,
    "moveToFinished": 14,
    "moveJobFromActiveToWait": 9,
    "moveStalledJobsToWait": 9,
    "moveToDelayed": 11,
    "extendLocks": 1,
    "removeJob": 2,
}
"""Script -> how many keys it takes, which is part of its file's name: another number is another script."""


class Script(Struct, frozen=True):
    """One script: its text, the hash that Redis knows it by, and the number of its keys."""

    text: str
    sha: str
    keys: int


def load_scripts() -> dict[str, Script]:
    """Return the scripts by name; raises ServiceError when the package is missing, or is of another generation."""
    package = _package()
    folder = Path(str(package.locate_file("bullmq/commands")))
    try:
        return {name: _script((folder / f"{name}-{keys}.lua").read_text("utf-8"), keys) for name, keys in KEYS.items()}
    except FileNotFoundError as error:
        raise ServiceError(
            f"bullmq {package.version} has no {Path(error.filename).name}: its scripts are not those that Tidings "
            'drives. Install the version that goes with this release: pip install "tidings[bullmq]".'
        ) from None


def _script(text: str, keys: int) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), keys)


def _package() -> Distribution:
    try:
        return distribution("bullmq")
    except PackageNotFoundError:
        raise ServiceError('A bullmq:// transport needs the package bullmq: pip install "tidings[bullmq]".') from None
