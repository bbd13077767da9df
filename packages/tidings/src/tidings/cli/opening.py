"""Options that many commands share: which store or service, since when, in whose name; and how they are opened."""

import getpass
import importlib
import re
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import click

from tidings.cli.failing import SERVICE, USAGE, CommandError, of_library
from tidings.cli.showing import now, tell
from tidings.errors import ServiceError, TidingsError
from tidings.service import Service
from tidings.store import Store
from tidings.world import microseconds

F = TypeVar("F", bound=Callable[..., Any])

_TARGET = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
_SPAN = re.compile(r"(\d+)\s*(s|min|m|h|d)")
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86_400}


def duration(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: a duration such as `90s`, `30min`, `2h` or `14d`, in microseconds."""
    if value is None:
        return None
    found = _SPAN.fullmatch(value)
    if not found:
        raise click.BadParameter(f"{value!r} is no duration; write 90s, 30min, 2h or 14d", ctx, param)
    return int(found[1]) * _SECONDS[found[2]] * 1_000_000


def time(ctx: click.Context, param: click.Parameter, value: str | None) -> int | None:
    """Callback of an option: a duration ago, or a time in ISO 8601 with its zone; microseconds since 1970 UTC."""
    if value is None:
        return None
    if _SPAN.fullmatch(value):
        return now() - (duration(ctx, param, value) or 0)
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        raise click.BadParameter(f"{value!r} is no time; write 2h (ago), or 2026-11-24T10:00:00Z", ctx, param) from None
    if moment.utcoffset() is None:
        raise click.BadParameter(f"{value!r} has no time zone; add Z, or +01:00", ctx, param)
    return microseconds(moment)


def store_options(command: F) -> F:
    """Add `--store`, `--service` and `--app-dir`; the command gets one `target`, a Target."""

    @click.option(
        "--store",
        "store_url",
        envvar="TIDINGS_STORE",
        metavar="URL",
        help="The store, such as sqlite:///billing.db. Also TIDINGS_STORE.",
    )
    @click.option("--service", "service_name", metavar="MODULE:SERVICE", help="Take the store of this service instead.")
    @app_dir_option
    @click.pass_context
    @wraps(command)
    def wrapped(
        ctx: click.Context, /, store_url: str | None, service_name: str | None, app_dir: str, **rest: Any
    ) -> Any:
        said = ctx.get_parameter_source("store_url") is click.core.ParameterSource.COMMANDLINE
        if said and service_name is not None:
            raise click.UsageError("--store and --service were both given, and each names a store; give one", ctx)
        if service_name is None and not store_url:
            raise click.UsageError(
                "no store was named; give --store URL, --service MODULE:SERVICE or TIDINGS_STORE", ctx
            )
        return command(target=Target(None if service_name else store_url, service_name, app_dir), **rest)

    return wrapped  # type: ignore[return-value]  # the signature is click's business


def app_dir_option(command: F) -> F:
    """Add `--app-dir`."""
    return click.option(
        "--app-dir", default=".", show_default=True, metavar="FOLDER", help="Where the module is looked for first."
    )(command)


def json_option(command: F) -> F:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, complete and stable, for programs.")(
        command
    )


def actor_option(command: F) -> F:
    """Add `--actor`: in whose name something is done; by default who is logged in."""
    return click.option("--actor", default=_who, metavar="NAME", help="In whose name. [default: user@host]")(command)


def yes_option(command: F) -> F:
    """Add `--yes`: do not ask."""
    return click.option("--yes", is_flag=True, help="Do it without asking, for scripts.")(command)


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer is yes already; raises click.Abort for no."""
    if not yes:
        click.confirm(question, abort=True, err=True)


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):  # a user id without a name
        return f"unknown@{socket.gethostname()}"


class Target:
    """The store that a command is about."""

    def __init__(self, url: str | None, service: str | None, app_dir: str) -> None:
        self._url = url
        self._service = service
        self._app_dir = app_dir

    def store(self) -> Store:
        """Return the store, not open yet; raises CommandError."""
        if self._url is None:
            assert self._service is not None  # store_options saw to it
            return load_service(self._service, self._app_dir).store
        try:
            return Service("operator", store=self._url).store
        except ServiceError as error:
            failure = of_library(error, "The store's URL cannot be used.")
            failure.exit_code = USAGE
            raise failure from None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Store]:
        """Open the store for reading only."""
        store = self.store()
        await store.open(migrate=False, read_only=True)
        try:
            yield store
        finally:
            await store.close()

    @asynccontextmanager
    async def writing(self) -> AsyncIterator[Store]:
        """Open the store for reading and writing; migrations are not applied."""
        store = self.store()
        # A store that is not there is not made: the name was mistyped, or no service has started yet.
        await store.open(migrate=False, read_only=True)
        await store.close()
        await store.open(migrate=False)
        try:
            yield store
        finally:
            await store.close()


def load_service(target: str, app_dir: str) -> Service:
    """Import `module:service`; raises CommandError that names what is missing."""
    what = f"The service {target} cannot be loaded."
    if not _TARGET.fullmatch(target):
        raise CommandError(
            what, f"{target!r} is not of the form MODULE:SERVICE", "Write for example billing:service.", USAGE
        )
    if not Path(app_dir).is_dir():
        raise CommandError(
            what, f"The folder {app_dir} does not exist", "Give --app-dir the folder of the module.", USAGE
        )
    name, _, path = target.partition(":")
    module = _import(name, app_dir, what)
    found: Any = module
    for part in path.split("."):
        if not hasattr(found, part):
            raise CommandError(
                what, f"Module {name} has no {path}", f"Name one of its services: {_services(module)}.", SERVICE
            )
        found = getattr(found, part)
    if not isinstance(found, Service):
        why = f"{target} is of type {type(found).__name__}, not a Service"
        raise CommandError(what, why, f"Name one of its services: {_services(module)}.", SERVICE)
    return found


def _services(module: Any) -> str:
    names = [name for name, value in vars(module).items() if isinstance(value, Service)]
    return ", ".join(sorted(names)) or "it has none yet (service = Service(…))"


def _import(name: str, app_dir: str, what: str) -> Any:
    folder = str(Path(app_dir).resolve())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(f"{error.name}.")):
            do = "Check its spelling, or give --app-dir the folder it is in."
            raise CommandError(
                what, f"There is no module {error.name} in {folder} or among the installed ones", do, SERVICE
            ) from None
        raise _broken(error, name, what) from None
    except TidingsError as error:
        raise of_library(error, what) from None
    except Exception as error:
        raise _broken(error, name, what) from None


def _broken(error: Exception, name: str, what: str) -> CommandError:
    tell("".join(traceback.format_exception(error)))
    why = f"importing {name} raised {type(error).__name__}: {error}"
    return CommandError(what, why, "Correct the module: the traceback above says where.", SERVICE)
