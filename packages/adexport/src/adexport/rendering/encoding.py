"""From pixels to file bytes: PNG, JPEG and WebP, the same bytes for the same pixels."""

from io import BytesIO
from typing import Final, Literal, Protocol

import msgspec
import PIL
from PIL import Image

from adexport.errors import AdExportError

FormatName = Literal["png", "jpeg", "webp"]
Colour = tuple[int, int, int]

WHITE: Final[Colour] = (255, 255, 255)

PNG_LEVEL: Final = 6
"""zlib level. Measured at 1080x1080: level 9 saves 5 % of the bytes for 6 times the time, level 1 adds 20 %."""
WEBP_METHOD: Final = 4
"""libwebp effort, 0 to 6. Measured: 2 is twice as fast and 3 % larger."""
FULL_CHROMA_FROM: Final = 75
"""JPEG quality from which colour keeps its full resolution (4:4:4): red text on a photo stays sharp.

Measured on the same banner at quality 85: 36.9 dB against 33.8 dB for 4:2:0, for 25 % more bytes. Below this
quality the bytes are better spent on the blocks than on the colour.
"""
DEFAULT_QUALITY: Final[dict[FormatName, int]] = {"jpeg": 90, "webp": 80}
"""The quality where no limit presses. PNG has none: it is lossless."""

PROBE_PIXELS: Final = 4_096
"""A palette is chosen on this many pixels. Measured: 16,384 take four times as long for 0.2 dB more."""

ENCODER_VERSION: Final = f"2-pillow{PIL.__version__}"
"""Goes into cache keys beside the renderer's version: other encoders make other bytes."""


class FileFormat(msgspec.Struct, frozen=True):
    """A file format: its name in requests, the file name's ending and the media type."""

    name: FormatName
    extension: str
    media_type: str
    transparent: bool


FORMATS: Final[dict[FormatName, FileFormat]] = {
    "png": FileFormat("png", "png", "image/png", transparent=True),
    "jpeg": FileFormat("jpeg", "jpg", "image/jpeg", transparent=False),
    "webp": FileFormat("webp", "webp", "image/webp", transparent=True),
}
"""The formats this version writes."""


class EncodeError(AdExportError):
    """The pixels or the settings cannot be encoded; asking again gives the same answer."""

    retryable = False


class Pixels(Protocol):
    """What the renderer gives: straight RGBA, row by row, 4 bytes a pixel; `opaque` when every alpha is 255."""

    @property
    def width(self) -> int:
        """Pixels across."""

    @property
    def height(self) -> int:
        """Pixels down."""

    @property
    def rgba(self) -> bytes | bytearray:
        """`width * height * 4` bytes, not premultiplied."""

    @property
    def opaque(self) -> bool:
        """Whether no pixel lets anything through."""


def to_image(pixels: Pixels, matte: Colour | None = None) -> Image.Image:
    """Wrap pixels for Pillow: without a matte RGB when opaque, else RGBA; with one RGB without transparency.

    JPEG's encoder reads RGB out of four bytes a pixel as well (RGBX), so opaque pixels with a matte are not copied.
    Raises EncodeError when the byte count does not match the size.
    """
    expected = pixels.width * pixels.height * 4
    if len(pixels.rgba) != expected or not expected:
        raise EncodeError(
            f"Cannot encode a {pixels.width}x{pixels.height} image: it needs {expected} bytes of RGBA (at least one "
            f"pixel), got {len(pixels.rgba)}. Give straight RGBA, 4 bytes a pixel."
        )
    mode = "RGBX" if pixels.opaque and matte else "RGBA"
    image = Image.frombuffer(mode, (pixels.width, pixels.height), pixels.rgba, "raw", mode, 0, 1)
    if matte is None:
        return image.convert("RGB") if pixels.opaque else image
    if pixels.opaque:
        return image
    flat = Image.new("RGB", image.size, matte)
    flat.paste(image, mask=image.getchannel("A"))
    return flat


def encode(
    pixels: Pixels,
    format: FormatName,
    *,
    quality: int | None = None,
    matte: Colour = WHITE,
) -> bytes:
    """Encode once, without looking at a limit. `quality` is 1 to 100, for JPEG and WebP; PNG is lossless.

    JPEG has no transparency: it is flattened on `matte`. Raises EncodeError for an unknown format or quality.
    """
    checked = check_quality(format, quality)
    if format == "png":
        return png_bytes(to_image(pixels))
    if format == "jpeg":
        return jpeg_bytes(to_image(pixels, matte), checked)
    return webp_bytes(to_image(pixels), checked)


def check_quality(format: FormatName, quality: int | None) -> int:
    """The quality to use: the given one, else the format's own. Raises EncodeError when it makes no sense."""
    if format not in FORMATS:
        raise EncodeError(f"Cannot write '{format}' files. Choose from: {', '.join(FORMATS)}.")
    if quality is None:
        return DEFAULT_QUALITY.get(format, 100)
    if format == "png":
        raise EncodeError("PNG has no quality: it is lossless. Leave quality out, or choose jpeg or webp.")
    if not 1 <= quality <= 100:
        raise EncodeError(f"Quality {quality} is not between 1 and 100. Leave it out for the default.")
    return quality


def png_bytes(image: Image.Image) -> bytes:
    """PNG bytes of an RGB, RGBA or palette image."""
    out = BytesIO()
    image.save(out, "PNG", compress_level=PNG_LEVEL)
    return out.getvalue()


def jpeg_bytes(image: Image.Image, quality: int, *, tight: bool = False) -> bytes:
    """Baseline JPEG bytes of an RGB or RGBX image: full chroma from quality 75, half of it (4:2:0) below.

    `tight` makes the code tables for this very picture. Measured on the sample designs: the same pixels in 2 to 17 %
    fewer bytes (most on large, calm ones) for twice the time, so it is for where bytes are short.
    """
    out = BytesIO()
    subsampling = 0 if quality >= FULL_CHROMA_FROM else 2
    image.save(out, "JPEG", quality=quality, subsampling=subsampling, optimize=tight)
    return out.getvalue()


def webp_bytes(image: Image.Image, quality: int) -> bytes:
    """Lossy WebP bytes of an RGB or RGBA image; transparency is kept without loss."""
    out = BytesIO()
    image.save(out, "WEBP", quality=quality, method=WEBP_METHOD)
    return out.getvalue()


def to_palette(image: Image.Image, colours: int, *, dither: bool) -> Image.Image:
    """Reduce to at most `colours` (2 to 256) colours.

    The palette of an opaque image is found by median cut and k-means (2 to 3 dB better than without) on a sample of
    its pixels; the sample is taken, not averaged, so that a small logo keeps its exact colours. Transparent
    images take Pillow's octree, the only one of its methods that knows alpha, and are never dithered.
    """
    if image.mode == "RGBA":
        return image.quantize(colours, method=Image.Quantize.FASTOCTREE)
    shrink = max(1.0, (image.width * image.height / PROBE_PIXELS) ** 0.5)
    size = (max(1, round(image.width / shrink)), max(1, round(image.height / shrink)))
    probe = image.resize(size, Image.Resampling.NEAREST)
    palette = probe.quantize(colours, method=Image.Quantize.MEDIANCUT, kmeans=1)
    return image.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG if dither else Image.Dither.NONE)
