"""Who may open a SQLite file: one library per process; one process where the library has the WAL-reset bug."""

import os
from pathlib import Path
from typing import TextIO

from tidings.errors import StoreInUseError

try:
    import fcntl
except ImportError:  # pragma: no cover - Windows has no flock; nor is it supported
    fcntl = None  # type: ignore[assignment]

SAFE_WITH_SEVERAL = (3, 51, 3)
"""From this SQLite on, several connections may write in WAL mode; before, a reset of the WAL can corrupt the file
(https://www.sqlite.org/wal.html, section on the WAL-reset bug)."""

# File -> library that this process has opened it with, and how often. Closing one library's file drops the POSIX
# locks that the other holds; a committed row was seen to vanish.
_libraries: dict[Path, tuple[str, int]] = {}


def shareable(version: str) -> bool:
    """Say whether a SQLite version may have several writing processes on one file."""
    return tuple(int(part) for part in version.split(".")[:3]) >= SAFE_WITH_SEVERAL


class FileGuard:
    """Holds a process's right to open a file; `release` gives it back.

    Raises StoreInUseError when another library of this process, or (for an unsafe library) another process, has it.
    """

    def __init__(self, path: Path, library: str, version: str) -> None:
        self._path = path.resolve()
        self._library = library
        self._lock: TextIO | None = None
        other, count = _libraries.get(self._path, (library, 0))
        if other != library:
            raise StoreInUseError(
                f"{path} is already open through {other} in this process, and two SQLite libraries on one file drop "
                f"each other's locks. Open it with one of them everywhere."
            )
        if not shareable(version):
            self._lock = self._exclusive(path, library, version)
        _libraries[self._path] = (library, count + 1)

    def _exclusive(self, path: Path, library: str, version: str) -> TextIO:
        lock = open(f"{path}.lock", "a+")  # noqa: SIM115 - held until release
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.seek(0)
            holder = lock.read().strip() or "unknown"
            lock.close()
            if self._path in _libraries:
                raise StoreInUseError(
                    f"{path} is open for writing in this process already, by another Service or another use of this "
                    f"one, and SQLite {version} of {library} can corrupt a file that two connections write. Share one "
                    "Service, or install tidings[apsw] and write sqlite+apsw:// everywhere."
                ) from None
            raise StoreInUseError(
                f"{path} is written by process {holder}, and SQLite {version} of {library} can corrupt a file that two "
                "processes write. Use one process, or install tidings[apsw] and write sqlite+apsw:// everywhere."
            ) from None
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        return lock

    def release(self) -> None:
        """Give the file back."""
        library, count = _libraries[self._path]
        if count > 1:
            _libraries[self._path] = (library, count - 1)
        else:
            del _libraries[self._path]
        if self._lock is not None:
            self._lock.close()
            self._lock = None
