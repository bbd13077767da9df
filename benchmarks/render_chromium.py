"""The neighbour of benchmarks/render.py: a layout as equal HTML, and a warm Chromium page that takes its picture.

Everything is positioned absolutely from the resolved layout, with the same font files and pictures, so Chromium does no
layout of its own worth the name: what is compared is drawing and encoding.
"""

import html
import math
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from playwright.sync_api import Browser, CDPSession, Page

import adexport.designs
import adexport.rendering
from adexport.designs import Design
from adexport.designs.document import TypeStyle
from adexport.designs.parsing import variation_for, walk
from adexport.rendering.fonts import face_for
from adexport.rendering.scene import (
    AnyItem,
    FillSpec,
    ImageItem,
    Layout,
    ShadowSpec,
    ShapeItem,
    TextItem,
)

FONTS = Path(adexport.rendering.__file__).parent / "fonts"
PICTURES = Path(adexport.designs.__file__).parent / "samples" / "images"
Styles = Mapping[str, TypeStyle]
_REPLACE = """async body => {
  document.body.innerHTML = body;
  await Promise.all([document.fonts.ready, ...[...document.images].map(image => image.decode())]);
}"""


def head_html() -> str:
    """Return the page that is kept open: the fonts by file, no margins, no body yet.

    The metrics are overridden so that a line's baseline lies exactly one em below its top, whatever the font.
    """
    faces = "".join(
        f"@font-face {{ font-family: '{file.stem}'; src: url('{file.as_uri()}'); ascent-override: 100%;"
        " descent-override: 0%; line-gap-override: 0% }\n"
        for file in sorted(FONTS.iterdir())
        if file.suffix in (".ttf", ".otf")
    )
    rules = "body { margin: 0; overflow: hidden } body > * { position: absolute } p { margin: 0; white-space: pre;"
    rules += " unicode-bidi: plaintext; text-rendering: geometricPrecision }"
    return f"<!doctype html><meta charset='utf-8'><style>{faces}{rules}</style><body></body>"


def body_html(layout: Layout, design: Design) -> str:
    """Return the layout's items as elements in drawing order."""
    variation = variation_for(design, layout.width, layout.height)
    styles = {layer.id: layer for layer in walk(variation.layers) if isinstance(layer, TypeStyle)}
    ground = f"<div style='left:0;top:0;width:{layout.width}px;height:{layout.height}px;{_background(layout)}'></div>"
    return ground + "".join(_element(item, layout, styles) for item in layout.items if item.opacity > 0)


def _background(layout: Layout) -> str:
    return f"background:{_fill(layout.background, layout.width, layout.height)}"


def _element(item: AnyItem, layout: Layout, styles: Styles) -> str:
    if isinstance(item, TextItem):
        return "".join(_line(item, at, styles[item.layer]) for at in range(len(item.lines)))
    if isinstance(item, ImageItem):
        return _picture(item)
    if item.shape in ("rectangle", "ellipse") and not item.stroke:
        return _plate(item)
    return _figure(item, layout)


def _line(item: TextItem, at: int, style: TypeStyle) -> str:
    line = item.lines[at]
    own = face_for(style.font, style.weight, style.italic)
    faces = dict.fromkeys([own, *(run.face for run in line.runs)])
    families = ",".join(f'"{Path(face.file).stem}"' for face in faces)
    # Chromium rounds a font's ascent to whole pixels.
    css = f"font:{item.size}px/{round(item.size)}px {families};color:{_colour(item.colour)};"
    css += f"letter-spacing:{style.letter_spacing}em;" if style.letter_spacing else ""
    css += f"text-shadow:{_shadow(item.shadow)};" if item.shadow else ""
    top = line.baseline - round(item.size)
    return f"<p style='{_place(item, line.x, top)}{css}'>{html.escape(line.text)}</p>"


def _picture(item: ImageItem) -> str:
    left, top = math.floor(item.box.x + 0.5), math.floor(item.box.y + 0.5)
    width, height = max(round(item.box.right) - left, 1), max(round(item.box.bottom) - top, 1)
    (file,) = PICTURES.glob(f"{item.source.removeprefix('asset:')}.*")
    css = f"width:{width}px;height:{height}px;object-fit:{item.fit};border-radius:{item.radius}px;"
    css += f"object-position:{item.focus[0]:%} {item.focus[1]:%};"
    css += f"box-shadow:{_shadow(item.shadow)};" if item.shadow else ""
    return f"<img src='{file.as_uri()}' style='{_place(item, left, top)}{css}'>"


def _plate(item: ShapeItem) -> str:
    box = item.box
    css = f"width:{box.width}px;height:{box.height}px;"
    css += f"border-radius:{'50%' if item.shape == 'ellipse' else f'{item.radius}px'};"
    css += f"background:{_fill(item.fill, box.width, box.height)};" if item.fill else ""
    css += f"box-shadow:{_shadow(item.shadow)};" if item.shadow else ""
    return f"<div style='{_place(item, box.x, box.y)}{css}'></div>"


def _figure(item: ShapeItem, layout: Layout) -> str:
    """Return what CSS boxes cannot show as SVG over the whole canvas."""
    box = item.box
    paint = f"fill='{_svg_fill(item.fill)}'" if item.fill else "fill='none'"
    if item.stroke:
        paint += f" stroke='{_colour(item.stroke[1])}' stroke-width='{item.stroke[0]}'"
        paint += " stroke-linejoin='round' stroke-linecap='round'"
    css = f"filter:drop-shadow({_shadow(item.shadow, 0.5)});" if item.shadow else ""
    return (
        f"<svg style='{_place(item, 0, 0)}{css}' width='{layout.width}' height='{layout.height}'>"
        f"{_svg_gradient(item)}{_outline(item, box.x, box.y, paint)}</svg>"
    )


def _outline(item: ShapeItem, x: float, y: float, paint: str) -> str:
    box = item.box
    if item.shape == "rectangle":
        size = f"width='{box.width}' height='{box.height}' rx='{item.radius}'"
        return f"<rect x='{x}' y='{y}' {size} {paint}/>"
    if item.shape == "ellipse":
        middle = f"cx='{x + box.width / 2}' cy='{y + box.height / 2}'"
        return f"<ellipse {middle} rx='{box.width / 2}' ry='{box.height / 2}' {paint}/>"
    return f"<path d='{_path(item)}' {paint}/>"


def _path(item: ShapeItem) -> str:
    points = list(item.points)
    if item.shape == "star":
        x, y = item.box.x + item.box.width / 2, item.box.y + item.box.height / 2
        for step in range(2 * item.spikes):
            reach, angle = (item.inner if step % 2 else 1.0) / 2, math.pi * step / item.spikes - math.pi / 2
            points.append((x + math.cos(angle) * reach * item.box.width, y + math.sin(angle) * reach * item.box.height))
    closed = item.shape != "polyline"
    data = f"M{points[0][0]} {points[0][1]}"
    if not (item.smooth and len(points) > 2):
        return data + "".join(f"L{x} {y}" for x, y in points[1:]) + ("Z" if closed else "")
    ends = [points[0], *points, points[-1]]
    for at, (start, end) in enumerate(pairwise(points)):
        before, after = ends[at], ends[at + 3]
        data += f"C{start[0] + (end[0] - before[0]) / 6} {start[1] + (end[1] - before[1]) / 6}"
        data += f" {end[0] - (after[0] - start[0]) / 6} {end[1] - (after[1] - start[1]) / 6} {end[0]} {end[1]}"
    floor = item.box.bottom
    return data + (f"L{points[-1][0]} {floor}L{points[0][0]} {floor}Z" if closed else "")


def _place(item: AnyItem, left: float, top: float) -> str:
    css = f"left:{left}px;top:{top}px;" + (f"opacity:{item.opacity};" if item.opacity < 1 else "")
    if item.turns:
        turns = " ".join(f"translate({x}px,{y}px) rotate({d}deg) translate({-x}px,{-y}px)" for d, x, y in item.turns)
        css += f"transform-origin:{-left}px {-top}px;transform:{turns};"
    return css


def _colour(colour: int) -> str:
    return f"#{colour & 0xFFFFFF:06x}{colour >> 24:02x}"


def _shadow(shadow: ShadowSpec, per_blur: float = 1.0) -> str:
    """Return offset, blur and colour; a filter wants the standard deviation, which is half the blur."""
    return f"{shadow.dx}px {shadow.dy}px {shadow.blur * per_blur}px {_colour(shadow.colour)}"


def _fill(fill: FillSpec, width: float, height: float) -> str:
    if len(fill.stops) == 1:
        return _colour(fill.stops[0][1])
    stops = ",".join(f"{_colour(colour)} {at:%}" for at, colour in fill.stops)
    if fill.gradient == "radial":
        return f"radial-gradient(circle {math.hypot(width, height) / 2}px at center,{stops})"
    return f"linear-gradient({fill.angle + 90}deg,{stops})"


def _svg_fill(fill: FillSpec) -> str:
    return _colour(fill.stops[0][1]) if len(fill.stops) == 1 else "url(#fill)"


def _svg_gradient(item: ShapeItem) -> str:
    if item.fill is None or len(item.fill.stops) == 1:
        return ""
    if item.fill.gradient == "radial":
        raise SystemExit(f"{item.layer}: a radial gradient in a figure of its own has no HTML here yet.")
    box, angle = item.box, math.radians(item.fill.angle)
    x, y, dx, dy = box.x + box.width / 2, box.y + box.height / 2, math.cos(angle), math.sin(angle)
    half = (abs(box.width * dx) + abs(box.height * dy)) / 2
    ends = f"x1='{x - dx * half}' y1='{y - dy * half}' x2='{x + dx * half}' y2='{y + dy * half}'"
    stops = "".join(f"<stop offset='{at}' stop-color='{_colour(colour)}'/>" for at, colour in item.fill.stops)
    return f"<linearGradient id='fill' gradientUnits='userSpaceOnUse' {ends}>{stops}</linearGradient>"


class WarmPage:
    """A page of one size that stays open; its content is replaced for each picture."""

    def __init__(self, browser: Browser, width: int, height: int, head: Path) -> None:
        self._page: Page = browser.new_page(viewport={"width": width, "height": height})
        self._page.goto(head.as_uri())
        self._session: CDPSession = self._page.context.new_cdp_session(self._page)

    def screenshot(self, body: str, quality: int) -> bytes:
        """Return the JPEG as Playwright takes it."""
        self._page.evaluate(_REPLACE, body)
        return self._page.screenshot(type="jpeg", quality=quality)

    def capture(self, body: str, quality: int) -> str:
        """Return the JPEG in Base64 by the protocol's bare call, without what Playwright does around it."""
        self._page.evaluate(_REPLACE, body)
        options = {"format": "jpeg", "quality": quality, "optimizeForSpeed": True}
        return str(self._session.send("Page.captureScreenshot", options)["data"])
