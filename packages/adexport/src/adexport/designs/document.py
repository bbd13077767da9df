"""The design document, version 1: the structs that a design's JSON is decoded into.

`docs/reference/design.md` explains every member to the people who write designs.
"""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from adexport.designs.colours import parse_colour
from adexport.designs.lengths import Length, parse_length
from adexport.designs.templates import Template, parse_template

Share = Annotated[float, Meta(ge=0, le=1)]
Name = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")]
SizeText = Annotated[str, Meta(pattern=r"^[1-9][0-9]{0,3}x[1-9][0-9]{0,3}$")]
Aspect = Literal["strip", "landscape", "rectangle", "portrait", "skyscraper"]
Place = Literal["start", "center", "end"]
Family = Literal["Inter", "Outfit", "Playfair Display", "Plus Jakarta Sans", "Space Grotesk"]


class Colour:
    """A colour literal, or a template whose filled text must be one."""

    __slots__ = ("literal", "template")

    def __init__(self, source: object) -> None:
        """Read `source`; a literal is known now, as 0xAARRGGBB. Raises ValueError that says what is allowed."""
        if not isinstance(source, str):
            raise ValueError(f"{source!r} is not a colour; write a text such as '#ff5a1f'")
        self.template = parse_template(source)
        self.literal = None if self.template.fields() else parse_colour(source)


class Stop(Struct, frozen=True, forbid_unknown_fields=True):
    """One stop of a gradient: `at` 0 (start) to 1 (end)."""

    at: Share
    color: Colour


class Fill(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A colour (one stop) or a gradient. `angle` in degrees: 0 runs left to right, 90 top to bottom."""

    gradient: Literal["linear", "radial"] = "linear"
    angle: Annotated[float, Meta(ge=-360, le=360)] = 90.0
    stops: Annotated[tuple[Stop, ...], Meta(min_length=1, max_length=16)]


class Insets(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Distances kept free inside the canvas edges."""

    left: Length = Length()
    right: Length = Length()
    top: Length = Length()
    bottom: Length = Length()


class Box(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where a layer lies in its parent; `aspect` is width / height and gives the side that is missing."""

    left: Length | None = None
    right: Length | None = None
    top: Length | None = None
    bottom: Length | None = None
    width: Length | None = None
    height: Length | None = None
    aspect: Annotated[float, Meta(gt=0, le=100)] | None = None


class Shadow(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A soft shadow: offset and blur as lengths."""

    dx: Length = Length()
    dy: Length = Length()
    blur: Length
    color: Colour


class Stroke(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """An outline, centred on the shape's edge."""

    width: Length
    color: Colour


class Layer(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, tag_field="type"):
    """What every layer has. `drop`: when a stack is too full, its layers leave, highest number first (0 stays)."""

    id: Annotated[str, Meta(pattern=r"^[A-Za-z][A-Za-z0-9_-]{0,63}$")]
    box: Box = Box()
    bleed: bool = False
    grow: Annotated[float, Meta(ge=0, le=1000)] = 0.0
    drop: Annotated[int, Meta(ge=0, le=9)] = 0
    show_if: str | None = None
    opacity: Share = 1.0
    rotate: Annotated[float, Meta(ge=-360, le=360)] = 0.0
    shadow: Shadow | None = None


class TypeStyle(Layer, frozen=True, kw_only=True):
    """What text and buttons share. `size` is the largest font size; auto-fit goes down to `min_size`."""

    text: Template
    font: Family = "Inter"
    weight: Annotated[int, Meta(ge=100, le=900)] = 400
    italic: bool = False
    size: Length
    min_size: Length | None = None
    color: Colour = Colour("#111111")
    letter_spacing: Annotated[float, Meta(ge=-0.2, le=1)] = 0.0


class Text(TypeStyle, frozen=True, kw_only=True, tag="text"):
    """Lines of text, auto-fitted to the box. `letter_spacing` in em, `line_height` a multiple of the size."""

    align: Place = "start"
    valign: Place = "start"
    line_height: Annotated[float, Meta(ge=0.7, le=3)] = 1.15
    max_lines: Annotated[int, Meta(ge=1, le=50)] = 3
    balance: bool = True


class Button(TypeStyle, frozen=True, kw_only=True, tag="button"):
    """One line of text on a filled plate. `pad_x`, `pad_y` and `radius` in em of the label's size."""

    fill: Fill
    radius: Annotated[float, Meta(ge=0, le=100)] = 0.5
    pad_x: Annotated[float, Meta(ge=0, le=10)] = 1.2
    pad_y: Annotated[float, Meta(ge=0, le=10)] = 0.75
    stroke: Stroke | None = None


class Image(Layer, frozen=True, kw_only=True, tag="image"):
    """A picture: `asset:NAME` (bundled) or `sha256:…` (uploaded). `focus` is what `cover` keeps in view."""

    source: Template
    fit: Literal["cover", "contain"] = "cover"
    focus: tuple[Share, Share] = (0.5, 0.5)
    radius: Length = Length()


class Shape(Layer, frozen=True, kw_only=True, tag="shape"):
    """A filled or stroked figure. `points` (0 to 1 of the box) draw a polygon or polyline."""

    shape: Literal["rectangle", "ellipse", "star", "polygon", "polyline"] = "rectangle"
    fill: Fill | None = None
    stroke: Stroke | None = None
    radius: Length = Length()
    points: Annotated[tuple[tuple[float, float], ...], Meta(max_length=500)] = ()
    smooth: bool = False
    spikes: Annotated[int, Meta(ge=3, le=60)] = 12
    inner: Annotated[float, Meta(gt=0, le=1)] = 0.86


class Group(Layer, frozen=True, kw_only=True, tag="group"):
    """Layers laid out together: `free` by their boxes, or stacked as a `row` or `column`."""

    layers: Annotated[tuple["Text | Image | Shape | Group | Button", ...], Meta(max_length=100)]
    layout: Literal["free", "row", "column"] = "free"
    gap: Length = Length()
    pad_x: Length = Length()
    pad_y: Length = Length()
    align: Place = "start"
    justify: Literal["start", "center", "end", "between"] = "start"
    fill: Fill | None = None
    radius: Length = Length()


AnyLayer = Text | Image | Shape | Group | Button
Raw = dict[str, Any]


class When(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which canvases an override is for; every condition given must hold."""

    aspect: tuple[Aspect, ...] | None = None
    sizes: tuple[SizeText, ...] | None = None
    min_ratio: float | None = None
    max_ratio: float | None = None
    min_width: int | None = None
    max_width: int | None = None
    min_height: int | None = None
    max_height: int | None = None

    def holds(self, width: int, height: int) -> bool:
        """Whether a canvas of this size is meant."""
        return (
            (self.aspect is None or aspect_of(width, height) in self.aspect)
            and (self.sizes is None or f"{width}x{height}" in self.sizes)
            and (self.min_ratio or 0) <= width / height <= (self.max_ratio or width)
            and (self.min_width or 0) <= width <= (self.max_width or width)
            and (self.min_height or 0) <= height <= (self.max_height or height)
        )


class Override(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What differs on some canvases: patches by layer id, another tree of layers, background, safe area."""

    when: When
    set: dict[str, Raw] = {}
    layers: tuple[Raw, ...] | None = None
    background: Fill | None = None
    safe_area: Insets | None = None


class Document(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The file as written; layers stay raw here because they are decoded per size, after the overrides."""

    version: Literal[1]
    name: Name
    title: Annotated[str, Meta(min_length=1, max_length=120)]
    description: Annotated[str, Meta(max_length=1000)] = ""
    lead: str | None = None
    background: Fill
    safe_area: Insets = Insets()
    sizes: Annotated[tuple[SizeText, ...], Meta(max_length=200)] = ()
    constants: dict[str, Any] = {}
    parts: dict[str, Raw] = {}
    layers: Annotated[tuple[Raw, ...], Meta(min_length=1)]
    overrides: Annotated[tuple[Override, ...], Meta(max_length=100)] = ()


class Variation(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The design as it stands for one canvas size: every override applied, every layer decoded."""

    background: Fill
    safe_area: Insets
    layers: tuple[AnyLayer, ...]


def aspect_of(width: int, height: int) -> Aspect:
    """The class of a canvas by width / height: 3 and up is a strip, under 0.4 a skyscraper."""
    ratio = width / height
    if ratio >= 3:
        return "strip"
    if ratio >= 1.4:
        return "landscape"
    if ratio >= 0.72:
        return "rectangle"
    return "portrait" if ratio >= 0.4 else "skyscraper"


def decode(kind: type, value: object) -> Any:
    """Read the types of a design that JSON does not have; for `msgspec.convert(dec_hook=decode)`."""
    if kind is Length:
        return parse_length(value)
    if kind is Colour:
        return Colour(value)
    if kind is Template:
        if not isinstance(value, str):
            raise ValueError(f"{value!r} is not a text")
        return parse_template(value)
    raise NotImplementedError(kind)


def convert(value: object, kind: type[Any]) -> Any:
    """Decode strictly. Raises msgspec.ValidationError whose message ends with the JSON path."""
    return msgspec.convert(value, kind, dec_hook=decode)
