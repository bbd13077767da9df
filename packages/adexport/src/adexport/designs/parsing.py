"""From bytes to a Design: strict decoding, then every variation is tried so that mistakes show at once."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import msgspec

from adexport.designs.document import (
    AnyLayer,
    Colour,
    Document,
    Group,
    Image,
    Layer,
    Raw,
    Variation,
    convert,
)
from adexport.designs.templates import Template
from adexport.errors import DesignError
from tidings import TidingsError, parse_json

_MOST_BYTES = 1_000_000
_MOST_LAYERS = 400
_DEEPEST = 12
_PATH = re.compile(r" - at `(.*)`$")


@dataclass(frozen=True, slots=True)
class Design:
    """A checked design. Equal designs have equal digests; `sizes` are (width, height) pairs in pixels."""

    digest: str
    name: str = field(compare=False)
    title: str = field(compare=False)
    description: str = field(compare=False)
    lead: str | None = field(compare=False)
    sizes: tuple[tuple[int, int], ...] = field(compare=False)
    document: Document = field(compare=False, repr=False)
    names: tuple[str, ...] = field(compare=False, repr=False)
    sources: tuple[str, ...] = field(compare=False, repr=False)

    def fields(self) -> list[str]:
        """Names of the feed fields that the design uses in any variation, in order of first use."""
        return list(self.names)

    def asset_names(self) -> list[str]:
        """Assets named literally in the design (`asset:…`, `sha256:…`), in order of first use."""
        return list(self.sources)


def parse_design(data: bytes | dict[str, Any]) -> Design:
    """Read a design document. Raises DesignError whose `path` is the JSON path of the culprit."""
    raw = _load(data)
    digest = hashlib.sha256(msgspec.json.encode(raw, order="deterministic")).hexdigest()
    document = _convert(_substitute(raw, raw.get("constants", {}), "$"), Document, "$")
    sizes = tuple(_pair(size) for size in document.sizes)
    layers = [layer for variation in _variations(document, sizes) for layer in walk(variation.layers)]
    backgrounds = [document.background, *(override.background for override in document.overrides)]
    templates = [template for fill in backgrounds if fill for template in _templates(fill)]
    templates += [template for layer in layers for template in _templates(layer)]
    names = [name for template in templates for name in template.fields()]
    names += [layer.show_if for layer in layers if layer.show_if]
    names += [document.lead] if document.lead else []
    sources = [layer.source.source for layer in layers if isinstance(layer, Image) and not layer.source.fields()]
    return Design(
        digest=digest,
        name=document.name,
        title=document.title,
        description=document.description,
        lead=document.lead,
        sizes=sizes,
        document=document,
        names=tuple(dict.fromkeys(names)),
        sources=tuple(dict.fromkeys(sources)),
    )


@lru_cache(maxsize=128)
def variation_for(design: Design, width: int, height: int) -> Variation:
    """The design as it stands on a canvas of this size in pixels. Raises DesignError."""
    return _variation(design.document, [o.when.holds(width, height) for o in design.document.overrides], "$")


def walk(layers: tuple[AnyLayer, ...]) -> Iterator[AnyLayer]:
    """Every layer, groups before what they hold."""
    for layer in layers:
        yield layer
        if isinstance(layer, Group):
            yield from walk(layer.layers)


def fillings(value: object) -> Iterator[Template | Colour]:
    """What a row fills in a layer or a fill, found by type; children of groups are walked separately."""
    if isinstance(value, Template | Colour):
        yield value
    elif isinstance(value, tuple | msgspec.Struct):
        parts = value if isinstance(value, tuple) else [getattr(value, name) for name in value.__struct_fields__]
        for part in parts:
            if not isinstance(part, Layer):
                yield from fillings(part)


def _load(data: bytes | dict[str, Any]) -> Raw:
    if isinstance(data, dict):
        return data
    if len(data) > _MOST_BYTES:
        raise DesignError("$", f"the document has {len(data)} bytes; keep it under {_MOST_BYTES}")
    try:
        raw = parse_json(data)
    except TidingsError as error:
        raise DesignError("$", str(error)) from error
    if not isinstance(raw, dict):
        raise DesignError("$", "a design is a JSON object")
    return raw


def _substitute(value: Any, constants: object, path: str) -> Any:
    """Replace every text `$name` by the constant of that name."""
    if isinstance(value, dict):
        return {
            key: each if path == "$" and key == "constants" else _substitute(each, constants, f"{path}.{key}")
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_substitute(each, constants, f"{path}[{index}]") for index, each in enumerate(value)]
    if isinstance(value, str) and re.fullmatch(r"\$[A-Za-z][\w-]*", value):
        if not isinstance(constants, dict) or value[1:] not in constants:
            raise DesignError(path, f"{value!r} names no constant; add it under $.constants")
        return constants[value[1:]]
    return value


def _convert(value: object, kind: type[Any], path: str) -> Any:
    try:
        return convert(_short_fills(value), kind)
    except msgspec.ValidationError as error:
        found = _PATH.search(str(error))
        inner = found[1].removeprefix("$") if found else ""
        raise DesignError(path + inner, _PATH.sub("", str(error))) from error


def _short_fills(value: Any) -> Any:
    """Write out the short form of a fill: a colour text is a fill with that one stop."""
    if isinstance(value, dict):
        return {
            key: {"stops": [{"at": 0, "color": each}]}
            if key in ("fill", "background") and isinstance(each, str)
            else _short_fills(each)
            for key, each in value.items()
        }
    if isinstance(value, list | tuple):
        return [_short_fills(each) for each in value]
    return value


def _pair(size: str) -> tuple[int, int]:
    width, _, height = size.partition("x")
    return int(width), int(height)


def _variations(document: Document, sizes: tuple[tuple[int, int], ...]) -> Iterator[Variation]:
    """The plain design, each override alone, and each suggested size: what parse time can check."""
    overrides = document.overrides
    yield _variation(document, [False] * len(overrides), "$")
    for index in range(len(overrides)):
        yield _variation(document, [index == each for each in range(len(overrides))], f"$.overrides[{index}]")
    for chosen in dict.fromkeys(tuple(override.when.holds(*size) for override in overrides) for size in sizes):
        yield _variation(document, chosen, "$")


def _variation(document: Document, chosen: Sequence[bool], path: str) -> Variation:
    layers, background, safe_area = document.layers, document.background, document.safe_area
    patches: dict[str, Raw] = {}
    for override, on in zip(document.overrides, chosen, strict=True):
        if on:
            layers = override.layers if override.layers is not None else layers
            background = override.background or background
            safe_area = override.safe_area or safe_area
            for name, patch in override.set.items():
                patches[name] = patches.get(name, {}) | patch
    expansion = _Expansion(document.parts, patches)
    tree = [expansion.expand(layer, f"{path}.layers", 0) for layer in layers]
    if unknown := set(patches) - expansion.patched - _known_ids(document):
        raise DesignError(f"{path}.set.{min(unknown)}", "no layer has this id")
    typed = tuple(_convert(layer, AnyLayer, f"{path}.layers[{at}]") for at, layer in enumerate(tree))  # type: ignore[arg-type]
    _check(typed, path)
    return Variation(background=background, safe_area=safe_area, layers=typed)


def _known_ids(document: Document) -> set[str]:
    """Ids that some variation has: a patch may name a layer that another override leaves out."""
    trees = [document.layers, *(override.layers or () for override in document.overrides)]
    return set(document.parts) | {name for tree in trees for layer in tree for name in _ids(layer)}


def _ids(raw: Any) -> Iterator[str]:
    if isinstance(raw, dict):
        yield from (raw[key] for key in ("id", "use") if isinstance(raw.get(key), str))
        children = raw.get("layers")
        for child in children if isinstance(children, list) else ():
            yield from _ids(child)


@dataclass(slots=True)
class _Expansion:
    """Writes out a tree of layers: parts where they are used, patches by id. Counts, so that it stays small."""

    parts: dict[str, Raw]
    patches: dict[str, Raw]
    patched: set[str] = field(default_factory=set)
    count: int = 0

    def expand(self, raw: Any, path: str, depth: int) -> Any:
        """Replace `{"use": part}` by that part, apply the patches, and go on inside groups."""
        self.count += 1
        if self.count > _MOST_LAYERS:
            raise DesignError(path, f"there are more than {_MOST_LAYERS} layers, those inside parts included")
        if depth > _DEEPEST:
            raise DesignError(path, f"groups are nested more than {_DEEPEST} deep; a part may not use itself")
        if not isinstance(raw, dict):
            return raw
        if "use" in raw:
            raw = self._part(raw, path)
        name = raw.get("id")
        if isinstance(name, str) and name in self.patches:
            self.patched.add(name)
            raw = raw | self.patches[name]
        if isinstance(raw.get("layers"), list | tuple):
            return {**raw, "layers": [self.expand(each, f"{path}.layers", depth + 1) for each in raw["layers"]]}
        return raw

    def _part(self, raw: Raw, path: str) -> Raw:
        part = raw["use"]
        if not isinstance(part, str) or part not in self.parts:
            raise DesignError(f"{path}.use", f"{part!r} is not among $.parts")
        return {"id": part, **self.parts[part], **{key: each for key, each in raw.items() if key != "use"}}


def _check(layers: tuple[AnyLayer, ...], path: str) -> None:
    """What the types cannot say: ids occur once."""
    seen: set[str] = set()
    for layer in walk(layers):
        if layer.id in seen:
            raise DesignError(f"{path}.layers", f"two layers have the id {layer.id!r}; ids are unique")
        seen.add(layer.id)


def _templates(value: object) -> Iterator[Template]:
    for each in fillings(value):
        yield each.template if isinstance(each, Colour) else each
