"""BullMQ's own Redis scripts, read from the installed `bullmq` package without importing it."""

import hashlib
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from msgspec import Struct

from tidings.errors import ServiceError

KEYS = {
    "addStandardJob": 9,
    "moveToActive": 11,
    "moveToFinished": 14,
    "moveJobFromActiveToWait": 9,
    "moveStalledJobsToWait": 9,
    "extendLocks": 1,
}
"""Script -> how many keys it takes, which is part of its file's name: another number is another script."""


class Script(Struct, frozen=True):
    """One script: its text, the hash that Redis knows it by, and the number of its keys."""

    text: str
    sha: str
    keys: int


def load_scripts() -> dict[str, Script]:
    """Return the scripts by name; raises ServiceError when the package is missing, or is of another generation."""
    folder = _folder()
    try:
        return {name: _script((folder / f"{name}-{keys}.lua").read_text("utf-8"), keys) for name, keys in KEYS.items()}
    except FileNotFoundError as error:
        raise ServiceError(
            f"bullmq {_version()} has no {Path(error.filename).name}: its scripts are not those that Tidings drives. "
            'Install the version that goes with this release: pip install "tidings[bullmq]".'
        ) from None


def _script(text: str, keys: int) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest(), keys)


def _folder() -> Path:
    spec = find_spec("bullmq")
    places = spec.submodule_search_locations if spec else None
    if not places:
        raise ServiceError('A bullmq:// transport needs the package bullmq: pip install "tidings[bullmq]".')
    return Path(next(iter(places))) / "commands"


def _version() -> str:
    try:
        return version("bullmq")
    except PackageNotFoundError:
        return "(of unknown version)"
