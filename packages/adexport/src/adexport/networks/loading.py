"""Reading the networks' rules from TOML files: those of the package, and a user's own."""

import tomllib
from collections import Counter
from collections.abc import Iterator
from datetime import date
from importlib import resources
from pathlib import Path
from typing import Annotated

import msgspec

from adexport.errors import AdExportError
from adexport.networks.rules import KNOWN_FORMATS, AnySize, Network, Placement

Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]+(-[a-z0-9]+)*$", max_length=60)]
SizeText = Annotated[str, msgspec.Meta(pattern=r"^[1-9][0-9]{0,4}x[1-9][0-9]{0,4}$")]
Text = Annotated[str, msgspec.Meta(min_length=1, max_length=500)]
Pixels = Annotated[int, msgspec.Meta(ge=1, le=99_999)]

MAX_FILE_BYTES = 1_000_000
"""A rules file is text that people write; a larger one is a mistake."""


class NetworkDataError(AdExportError):
    """A rules file cannot be read: the message names the file, the key and what to write instead."""

    retryable = False


class _Bounds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    min_width: Pixels
    min_height: Pixels
    max_width: Pixels
    max_height: Pixels


class _Group(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Placements that share their rules."""

    name: Text
    formats: Annotated[list[str], msgspec.Meta(min_length=1)]
    sizes: Annotated[dict[Slug, SizeText], msgspec.Meta(min_length=1)]
    max_bytes: Annotated[int, msgspec.Meta(ge=1)] | None = None
    rules: str = ""
    any_size: _Bounds | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: Slug
    title: Text
    as_of: date
    source: Text
    group: Annotated[list[_Group], msgspec.Meta(min_length=1)]
    note: str = ""
    unverified: list[Text] = []


def load_networks(extra: Path | None = None) -> dict[str, Network]:
    """Every network by name, in alphabetical order.

    `extra` is a TOML file, or a folder of them, in the layout of docs/reference/networks.md. A file with a new
    name adds a network. One with the name of a shipped network adds its rows to it, and replaces the shipped row
    of the same size. Raises NetworkDataError.
    """
    networks: dict[str, Network] = {}
    for place, text in [*_shipped(), *(_own(extra) if extra else ())]:
        network = parse_network(text, place)
        known = networks.get(network.name)
        networks[network.name] = _merge(known, network) if known else network
    return dict(sorted(networks.items()))


def parse_network(text: str, place: str) -> Network:
    """Read one rules file; `place` names it in errors. Raises NetworkDataError."""
    try:
        file = msgspec.convert(tomllib.loads(text), _File)
    except tomllib.TOMLDecodeError as error:
        raise NetworkDataError(f"{place} is not valid TOML: {error}. Correct that line.") from None
    except msgspec.ValidationError as error:
        raise NetworkDataError(
            f"{place} does not follow the layout for network rules: {error}. See docs/reference/networks.md."
        ) from None
    placements = [placement for group in file.group for placement in _placements(group, place)]
    _refuse_doubles(placements, place)
    return Network(
        name=file.name,
        title=file.title,
        as_of=file.as_of,
        source=file.source,
        placements=tuple(placements),
        any_size=_any_size(file, place),
        note=file.note,
        unverified=tuple(file.unverified),
    )


def _shipped() -> Iterator[tuple[str, str]]:
    folder = resources.files("adexport.networks") / "data"
    for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".toml"):
            yield entry.name, entry.read_text(encoding="utf-8")


def _own(extra: Path) -> Iterator[tuple[str, str]]:
    paths = sorted(extra.glob("*.toml")) if extra.is_dir() else [extra]
    if not paths:
        raise NetworkDataError(f"The folder {extra} holds no .toml file. Put one file of rules per network there.")
    for path in paths:
        try:
            if path.stat().st_size > MAX_FILE_BYTES:
                raise NetworkDataError(f"{path} is larger than {MAX_FILE_BYTES} bytes. Give a file of network rules.")
            yield str(path), path.read_text(encoding="utf-8")
        except OSError as error:
            raise NetworkDataError(f"Cannot read {path}: {error.strerror}. Check the path and its rights.") from None
        except UnicodeDecodeError:
            raise NetworkDataError(f"{path} is not UTF-8 text. Save it as UTF-8.") from None


def _placements(group: _Group, place: str) -> Iterator[Placement]:
    formats = _formats(group, place)
    for name, size in group.sizes.items():
        width, height = (int(side) for side in size.split("x"))
        yield Placement(
            name=name, width=width, height=height, formats=formats, max_bytes=group.max_bytes, rules=group.rules
        )


def _formats(group: _Group, place: str) -> tuple[str, ...]:
    unknown = sorted(set(group.formats) - set(KNOWN_FORMATS))
    if unknown:
        raise NetworkDataError(
            f"{place}, group '{group.name}': unknown format '{unknown[0]}'. Choose from {', '.join(KNOWN_FORMATS)}."
        )
    return tuple(sorted(set(group.formats)))


def _any_size(file: _File, place: str) -> AnySize | None:
    groups = [group for group in file.group if group.any_size]
    if len(groups) > 1:
        raise NetworkDataError(f"{place} has any_size in {len(groups)} groups. Keep it in one of them.")
    for group in groups:
        assert group.any_size is not None
        bounds = group.any_size
        if bounds.min_width > bounds.max_width or bounds.min_height > bounds.max_height:
            raise NetworkDataError(f"{place}, group '{group.name}': any_size has a minimum above its maximum.")
        return AnySize(
            min_width=bounds.min_width,
            min_height=bounds.min_height,
            max_width=bounds.max_width,
            max_height=bounds.max_height,
            formats=_formats(group, place),
            max_bytes=group.max_bytes,
            rules=group.rules,
        )
    return None


def _refuse_doubles(placements: list[Placement], place: str) -> None:
    for what, values in (("size", [p.size for p in placements]), ("name", [p.name for p in placements])):
        double, count = Counter(values).most_common(1)[0]
        if count > 1:
            raise NetworkDataError(f"{place} has the {what} '{double}' {count} times. Keep one row for it.")


def _merge(known: Network, own: Network) -> Network:
    """The shipped network with a user's rows in it: a user knows their contract better than a public page."""
    sizes = {placement.size for placement in own.placements}
    names = {placement.name for placement in own.placements}
    kept = [p for p in known.placements if p.size not in sizes and p.name not in names]
    return msgspec.structs.replace(
        known,
        placements=(*kept, *own.placements),
        any_size=own.any_size or known.any_size,
        source=f"{known.source}; own rows: {own.source}",
        unverified=(*known.unverified, *own.unverified),
    )
