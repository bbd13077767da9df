"""A picture from outside: its header is checked before anything is decoded, then it is decoded and written anew."""

from __future__ import annotations

import warnings
from io import BytesIO

import msgspec
from PIL import Image, ImageOps, UnidentifiedImageError

from adexport.errors import AdExportError

MAX_BYTES = 20_000_000
MAX_PIXELS = 40_000_000  # a 17 kB file can hold 144 million pixels; 40 take 160 MB to decode
_MAGIC = {b"\x89PNG\r\n\x1a\n": "PNG", b"\xff\xd8\xff": "JPEG", b"RIFF": "WEBP"}
_MEDIA_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg"}


class PictureError(AdExportError):
    """Bytes that cannot be taken as a picture."""

    retryable = False


class Picture(msgspec.Struct, frozen=True, kw_only=True):
    """A clean picture: `data` holds the pixels and nothing else of what was uploaded. Sizes in pixels."""

    data: bytes
    media_type: str
    width: int
    height: int


def clean_picture(data: bytes) -> Picture:
    """Decode and write anew: JPEG stays JPEG (quality 95), all else becomes PNG. Raises PictureError.

    Metadata, colour profiles, further frames and whatever was appended are gone afterwards; the orientation that the
    camera noted is applied.
    """
    kind = next((name for magic, name in _MAGIC.items() if data.startswith(magic)), None)
    if kind is None or (kind == "WEBP" and data[8:12] != b"WEBP"):
        raise PictureError(
            "The bytes are no PNG, JPEG or WebP picture. Upload one of these formats (SVG is not taken)."
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own cap is stricter
            image = Image.open(BytesIO(data), formats=[kind])
        _check_size(image)
        image.load()
        return _write(ImageOps.exif_transpose(image), kind)
    except (UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise PictureError(f"The {kind} picture cannot be read: {error}. Save it again and upload that.") from error
    except (OSError, SyntaxError, ValueError, EOFError) as error:
        raise PictureError(f"The {kind} picture is damaged or incomplete: {error}. Save it again.") from error


def _check_size(image: Image.Image) -> None:
    if image.width * image.height > MAX_PIXELS:
        raise PictureError(
            f"The picture has {image.width}x{image.height} pixels, more than {MAX_PIXELS // 1_000_000} million."
            " Scale it down: no ad needs more than 4096x4096."
        )


def _write(image: Image.Image, kind: str) -> Picture:
    kind = "JPEG" if kind == "JPEG" else "PNG"
    transparent = kind == "PNG" and image.has_transparency_data
    clean = image.convert("RGBA" if transparent else "RGB")
    clean.info = {}
    out = BytesIO()
    if kind == "JPEG":
        clean.save(out, "JPEG", quality=95, subsampling=0)
    else:
        clean.save(out, "PNG", compress_level=6)
    return Picture(data=out.getvalue(), media_type=_MEDIA_TYPES[kind], width=clean.width, height=clean.height)
