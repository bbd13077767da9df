"""A Layout to pixels with skia on the CPU. The same input gives the same bytes in every process."""

import math
from itertools import pairwise

from msgspec import Struct

from adexport.errors import RenderError
from adexport.rendering.images import Assets, ImageCache, picture_for
from adexport.rendering.scene import (
    AnyItem,
    Figures,
    FillSpec,
    ImageItem,
    Layout,
    Rect,
    ShadowSpec,
    ShapeItem,
    TextItem,
)
from adexport.rendering.skia_loader import skia

ENGINE_VERSION = f"3-skia{skia.__version__}"
"""Part of every cache key: changes whenever the same input may give other pixels."""

_SMOOTH = skia.SamplingOptions(skia.FilterMode.kLinear)
# skia takes the standard deviation of a blur; designers give its radius, twice that.
_SIGMA_PER_BLUR = 0.5
_kept = ImageCache(40_000_000)


class Raster(Struct, frozen=True):
    """Pixels: straight (not premultiplied) RGBA, 4 bytes each, row by row from the top left."""

    width: int
    height: int
    rgba: bytes | bytearray
    opaque: bool


def draw(layout: Layout, assets: Assets) -> Raster:
    """Draw every item of a layout in order. Raises RenderError naming the layer whose picture cannot be used."""
    size = layout.width, layout.height
    pixels = bytearray(layout.width * layout.height * 4)
    surface = skia.Surface.MakeRasterDirect(_info(*size), pixels)
    canvas = surface.getCanvas()
    for part in layout.parts:
        if isinstance(part, Figures):
            _draw_figures(canvas, part, assets)
        else:
            _draw_item(canvas, part, assets)
    if layout.background.opaque:  # straight and premultiplied alpha are then the same bytes
        return Raster(*size, pixels, opaque=True)
    surface.readPixels(_info(*size, skia.AlphaType.kUnpremul_AlphaType), straight := bytearray(len(pixels)))
    opaque = pixels[3::4].count(0xFF) == layout.width * layout.height
    return Raster(*size, straight, opaque)


def _info(width: int, height: int, alpha: skia.AlphaType = skia.AlphaType.kPremul_AlphaType) -> skia.ImageInfo:
    return skia.ImageInfo.Make(width, height, skia.ColorType.kRGBA_8888_ColorType, alpha)


def _draw_figures(canvas: skia.Canvas, figures: Figures, assets: Assets) -> None:
    """Draw figures from their kept pixels: gradients, blurs and curves are slow to draw, and the same in many rows."""
    if figures.background and len(figures.background.stops) == 1 and not figures.items:
        canvas.clear(figures.background.stops[0][1])
        return
    left, top, right, bottom = _reach(figures)
    if right <= left or bottom <= top:
        return
    image = _kept.get(figures)
    if image is None:
        surface = skia.Surface.MakeRaster(_info(right - left, bottom - top))
        if surface is None:
            raise RenderError("canvas", f"there is no memory for {figures.width}x{figures.height} pixels")
        surface.getCanvas().translate(-left, -top)
        if figures.background:
            surface.getCanvas().drawPaint(_fill_paint(figures.background, _canvas_of(figures), 1.0))
        for item in figures.items:
            _draw_item(surface.getCanvas(), item, assets)
        image = surface.makeImageSnapshot()
        _kept.put(figures, image)
    # What has the background lies under everything: its pixels are copied, not blended.
    mode = skia.BlendMode.kSrc if figures.background else skia.BlendMode.kSrcOver
    canvas.drawImage(image, left, top, skia.SamplingOptions(), skia.Paint(BlendMode=mode))


def _canvas_of(figures: Figures) -> Rect:
    return Rect(0, 0, figures.width, figures.height)


def _reach(figures: Figures) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of what the figures may cover, in whole pixels on the canvas."""
    if figures.background or any(item.turns for item in figures.items):
        return 0, 0, figures.width, figures.height
    left, top, right, bottom = figures.width, figures.height, 0, 0
    for item in figures.items:
        beyond = 1.0 + (item.stroke[0] if item.stroke else 0.0)
        if item.shadow:
            beyond += 2 * item.shadow.blur + max(abs(item.shadow.dx), abs(item.shadow.dy))
        left, top = min(left, math.floor(item.box.x - beyond)), min(top, math.floor(item.box.y - beyond))
        right, bottom = max(right, math.ceil(item.box.right + beyond)), max(bottom, math.ceil(item.box.bottom + beyond))
    return max(left, 0), max(top, 0), min(right, figures.width), min(bottom, figures.height)


def _draw_item(canvas: skia.Canvas, item: AnyItem, assets: Assets) -> None:
    if item.opacity <= 0 or item.box.width <= 0 or item.box.height <= 0:
        return
    canvas.save()
    for degrees, x, y in item.turns:
        canvas.rotate(degrees, x, y)
    if isinstance(item, TextItem):
        _draw_text(canvas, item)
    elif isinstance(item, ImageItem):
        _draw_image(canvas, item, assets)
    else:
        _draw_shape(canvas, item)
    canvas.restore()


def _rect(rect: Rect) -> skia.Rect:
    return skia.Rect.MakeXYWH(rect.x, rect.y, rect.width, rect.height)


def _faded(colour: int, opacity: float) -> int:
    return colour if opacity >= 1 else round((colour >> 24) * opacity) << 24 | colour & 0xFFFFFF


def _shadow_paint(shadow: ShadowSpec, opacity: float) -> skia.Paint:
    paint = skia.Paint(AntiAlias=True, Color=_faded(shadow.colour, opacity))
    if shadow.blur > 0:
        paint.setMaskFilter(skia.MaskFilter.MakeBlur(skia.kNormal_BlurStyle, shadow.blur * _SIGMA_PER_BLUR))
    return paint


def _fill_paint(fill: FillSpec, box: Rect, opacity: float) -> skia.Paint:
    if len(fill.stops) == 1:
        return skia.Paint(AntiAlias=True, Color=_faded(fill.stops[0][1], opacity))
    paint = skia.Paint(AntiAlias=True, Dither=False)
    colours = [_faded(colour, opacity) for _, colour in fill.stops]
    positions = [at for at, _ in fill.stops]
    x, y = box.x + box.width / 2, box.y + box.height / 2
    if fill.gradient == "radial":
        reach = math.hypot(box.width, box.height) / 2
        shader = skia.GradientShader.MakeRadial(skia.Point(x, y), reach, colours, positions)
    else:
        # As in CSS: the line through the centre is as long as the corners need to get the end colours.
        angle = math.radians(fill.angle)
        dx, dy = math.cos(angle), math.sin(angle)
        half = (abs(box.width * dx) + abs(box.height * dy)) / 2
        ends = [skia.Point(x - dx * half, y - dy * half), skia.Point(x + dx * half, y + dy * half)]
        shader = skia.GradientShader.MakeLinear(ends, colours, positions)
    paint.setShader(shader)
    return paint


def _draw_text(canvas: skia.Canvas, item: TextItem) -> None:
    builder = skia.TextBlobBuilder()
    for line in item.lines:
        for run in line.runs:
            font, xs = run.face.sized(item.size), [line.x + x for x in run.xs]
            if run.ys:
                points = [skia.Point(x, line.baseline + y) for x, y in zip(xs, run.ys, strict=True)]
                builder.allocRunPos(font, run.glyphs, points)
            else:
                builder.allocRunPosH(font, run.glyphs, xs, line.baseline)
    blob = builder.make()
    if blob is None:
        return
    if item.shadow:
        canvas.drawTextBlob(blob, item.shadow.dx, item.shadow.dy, _shadow_paint(item.shadow, item.opacity))
    canvas.drawTextBlob(blob, 0, 0, skia.Paint(AntiAlias=True, Color=_faded(item.colour, item.opacity)))


def _draw_image(canvas: skia.Canvas, item: ImageItem, assets: Assets) -> None:
    # Whole pixels keep a picture sharp: it is scaled to exactly the pixels that it covers.
    left, top = math.floor(item.box.x + 0.5), math.floor(item.box.y + 0.5)
    width, height = max(round(item.box.right) - left, 1), max(round(item.box.bottom) - top, 1)
    image = picture_for(item.source, assets, item.layer, (width, height), item.fit, item.focus)
    left += round((width - image.width()) * item.focus[0])
    top += round((height - image.height()) * item.focus[1])
    box = skia.Rect.MakeXYWH(left, top, image.width(), image.height())
    outline = skia.RRect.MakeRectXY(box, item.radius, item.radius)
    if item.shadow:
        moved = skia.RRect.MakeRectXY(box.makeOffset(item.shadow.dx, item.shadow.dy), item.radius, item.radius)
        canvas.drawRRect(moved, _shadow_paint(item.shadow, item.opacity))
    paint = skia.Paint(AntiAlias=True, Alphaf=item.opacity)
    if item.radius:
        paint.setShader(
            image.makeShader(skia.TileMode.kClamp, skia.TileMode.kClamp, _SMOOTH, skia.Matrix.Translate(left, top))
        )
        canvas.drawRRect(outline, paint)
    else:
        canvas.drawImage(image, left, top, _SMOOTH, paint)


def _draw_shape(canvas: skia.Canvas, item: ShapeItem) -> None:
    path = _path(item)
    if item.shadow:
        moved = skia.Path(path)
        moved.offset(item.shadow.dx, item.shadow.dy)
        canvas.drawPath(moved, _shadow_paint(item.shadow, item.opacity))
    if item.fill:
        canvas.drawPath(path, _fill_paint(item.fill, item.box, item.opacity))
    if item.stroke and item.stroke[0] > 0:
        paint = skia.Paint(AntiAlias=True, Color=_faded(item.stroke[1], item.opacity), Style=skia.Paint.kStroke_Style)
        paint.setStrokeWidth(item.stroke[0])
        paint.setStrokeJoin(skia.Paint.kRound_Join)
        paint.setStrokeCap(skia.Paint.kRound_Cap)
        canvas.drawPath(path, paint)


def _path(item: ShapeItem) -> skia.Path:
    box = _rect(item.box)
    if item.shape == "rectangle":
        return skia.Path.RRect(skia.RRect.MakeRectXY(box, item.radius, item.radius))
    if item.shape == "ellipse":
        return skia.Path.Oval(box)
    points = _star(item) if item.shape == "star" else list(item.points)
    closed = item.shape != "polyline"
    if item.smooth and len(points) > 2:
        return _smooth(points, closed, item.box.bottom)
    return skia.Path.Polygon([skia.Point(x, y) for x, y in points], closed)


def _star(item: ShapeItem) -> list[tuple[float, float]]:
    x, y = item.box.x + item.box.width / 2, item.box.y + item.box.height / 2
    points: list[tuple[float, float]] = []
    for step in range(2 * item.spikes):
        reach = (1.0 if step % 2 == 0 else item.inner) / 2
        angle = math.pi * step / item.spikes - math.pi / 2
        points.append((x + math.cos(angle) * reach * item.box.width, y + math.sin(angle) * reach * item.box.height))
    return points


def _smooth(points: list[tuple[float, float]], closed: bool, floor: float) -> skia.Path:
    """A curve through the points (Catmull-Rom as Bezier pieces); closed, it is an area down to the box's floor."""
    builder = skia.PathBuilder()
    builder.moveTo(*points[0])
    ends = [points[0], *points, points[-1]]
    for at, (start, end) in enumerate(pairwise(points)):
        before, after = ends[at], ends[at + 3]
        one = (start[0] + (end[0] - before[0]) / 6, start[1] + (end[1] - before[1]) / 6)
        two = (end[0] - (after[0] - start[0]) / 6, end[1] - (after[1] - start[1]) / 6)
        builder.cubicTo(*one, *two, *end)
    if closed:
        builder.lineTo(points[-1][0], floor)
        builder.lineTo(points[0][0], floor)
        builder.close()
    return builder.detach()
