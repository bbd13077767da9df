"""Every setting, read from ADEXPORT_* environment variables here and nowhere else."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

from adexport.errors import AdExportError

PREFIX = "ADEXPORT_"
_MOST_PROCESSES = 64
_LAST_PORT = 65535
_LONGEST_LINK = 604_800  # a week: S3 signs for no longer
_POSTGRES = "postgresql://"
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[\w.%-]*)(?::(\d{1,5}))?")


class SettingsError(AdExportError):
    """An environment variable has a value that cannot be used."""

    retryable = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How Ad Export runs. Each member is the variable ADEXPORT_NAME; docs/reference/settings.md explains them."""

    data: Path = Path("data")
    store: str = ""
    files: str = ""
    render_queue: str = ""
    results_queue: str = ""
    link_seconds: int = 300
    cache_mb: int = 500
    host: str = "127.0.0.1"
    port: int = 8000
    render_processes: int = 2
    render_memory_mb: int = 2000
    render_seconds: float = 60.0
    render_recycle_after: int = 2000
    keep_days: int = 90
    networks: Path | None = None
    root_path: str = ""
    hosts: tuple[str, ...] = ()

    @property
    def store_url(self) -> str:
        """The address of the database: `store`, else one SQLite file in the data folder."""
        return self.store or f"sqlite+apsw:///{self.data.resolve() / 'adexport.db'}"

    @property
    def places(self) -> str:
        """Where the data is, in words for people: never with the password, nor with who logs in."""
        parts = urlsplit(self.store)
        database = f", events in Postgres at {parts.netloc.rpartition('@')[2]}{parts.path}" if self.store else ""
        files = f", files in {self.files.partition('?')[0]}" if self.files else ""
        return f"data in {self.data.resolve()}{database}{files}"

    @property
    def files_folder(self) -> Path:
        """The folder of the file store, where `files` names no bucket."""
        return self.data.resolve() / "files"

    @property
    def keep(self) -> timedelta | None:
        """How long an export is kept after its end; None for ever."""
        return timedelta(days=self.keep_days) if self.keep_days else None

    @property
    def cache_folder(self) -> Path:
        """The folder for local copies of what is in a bucket."""
        return self.data.resolve() / "cache"


def read_settings(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises SettingsError naming the variable."""
    given = os.environ if environment is None else environment
    text = {name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)}
    networks = text.get("networks")
    settings = Settings(
        data=Path(text.get("data", "data")),
        store=_store(text.get("store", "")),
        files=text.get("files", "").strip(),
        render_queue=text.get("render_queue", "").strip(),
        results_queue=text.get("results_queue", "").strip(),
        link_seconds=_whole(text, "link_seconds", 300, 1, _LONGEST_LINK),
        cache_mb=_whole(text, "cache_mb", 500, 10, 1_000_000),
        host=text.get("host", "127.0.0.1"),
        port=_whole(text, "port", 8000, 1, _LAST_PORT),
        render_processes=_whole(text, "render_processes", min(os.cpu_count() or 1, 8), 1, _MOST_PROCESSES),
        render_memory_mb=_whole(text, "render_memory_mb", 2000, 500, 1_000_000),
        render_seconds=float(_whole(text, "render_seconds", 60, 1, 3600)),
        render_recycle_after=_whole(text, "render_recycle_after", 2000, 1, 1_000_000),
        keep_days=_whole(text, "keep_days", 90, 0, 36_500),
        networks=Path(networks) if networks else None,
        root_path=text.get("root_path", "").rstrip("/"),
        hosts=tuple(name.strip().lower() for name in text.get("hosts", "").split(",") if name.strip()),
    )
    if settings.render_queue:
        require_results(settings)
    return settings


def require_results(settings: Settings) -> None:
    """Raise SettingsError unless workers without a database have a place for files and one for results."""
    if not (settings.files and settings.results_queue):
        raise SettingsError(
            f"Rendering elsewhere needs {PREFIX}FILES=s3://… for the files and {PREFIX}RESULTS_QUEUE for what came of"
            f" each batch. Give both beside {PREFIX}RENDER_QUEUE, or none of them to render here."
        )


def _store(url: str) -> str:
    """A Postgres URL, or nothing for SQLite. What was given is never shown: a password may be anywhere in it."""
    url = re.sub(r"^postgres(ql\+asyncpg)?://", _POSTGRES, url.strip())
    if not url:
        return ""
    if not url.startswith(_POSTGRES):
        raise SettingsError(
            f"{PREFIX}STORE does not begin with {_POSTGRES}. Give postgresql://USER:PASSWORD@HOST:PORT/DATABASE, or"
            " leave it out for an SQLite file in the data folder."
        )
    parts = urlsplit(url)
    hosts = [_HOST.fullmatch(host) for host in parts.netloc.rpartition("@")[2].split(",")]
    if parts.fragment or "@" in parts.path or not all(host and int(host[1] or 1) <= _LAST_PORT for host in hosts):
        raise SettingsError(
            f"{PREFIX}STORE is not of the form postgresql://USER:PASSWORD@HOST:PORT/DATABASE. Write signs such as @, /,"
            " :, # and % in a user or password as %40, %2F, %3A, %23 and %25."
        )
    return url


def _whole(text: Mapping[str, str], name: str, default: int, least: int, most: int) -> int:
    value = text.get(name, str(default))
    if not (value.isascii() and value.isdigit() and len(value) <= 9 and least <= int(value) <= most):
        raise SettingsError(
            f"{PREFIX}{name.upper()} is {value[:40]!r}. Give a whole number from {least} to {most}, or leave it out."
        )
    return int(value)
