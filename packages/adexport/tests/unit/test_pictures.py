"""Pictures from outside: refused before decoding where they are hostile, else written anew."""

import struct
import zlib
from io import BytesIO

import pytest
from PIL import Image

from adexport.assets.pictures import PictureError, clean_picture


def encoded(kind, size=(40, 30), mode="RGB", **options):
    out = BytesIO()
    Image.new(mode, size, "#c04020").save(out, kind, **options)
    return out.getvalue()


def bomb(width, height):
    """A PNG whose header promises many pixels and whose data is a few bytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize(("kind", "media_type"), [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/png")])
def test_a_picture_is_written_anew(kind, media_type):
    picture = clean_picture(encoded(kind) + b"<script>appended</script>")
    assert (picture.width, picture.height, picture.media_type) == (40, 30, media_type)
    assert b"script" not in picture.data
    assert Image.open(BytesIO(picture.data)).size == (40, 30)


def test_metadata_goes_and_the_orientation_stays():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned a quarter
    exif[0x010F] = "Secret camera"
    picture = clean_picture(encoded("JPEG", exif=exif))
    assert (picture.width, picture.height) == (30, 40)
    assert b"Secret camera" not in picture.data


def test_transparency_stays():
    picture = clean_picture(encoded("PNG", mode="RGBA"))
    assert Image.open(BytesIO(picture.data)).mode == "RGBA"


@pytest.mark.parametrize("size", [(12_000, 12_000), (30_000, 30_000), (40_000_001, 1), (2**31 - 1, 2**31 - 1)])
def test_too_many_pixels_are_refused_by_the_header(size):
    with pytest.raises(PictureError, match=r"pixels|cannot be read|damaged"):
        clean_picture(bomb(*size))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not a picture",
        b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a 'aaaa'>]><svg>&a;</svg>",
        b"GIF89a" + b"\0" * 100,
        b"RIFF\0\0\0\0WAVE",
        b"\x89PNG\r\n\x1a\n",
        encoded("PNG")[:60],
        encoded("JPEG")[:300],
        encoded("WEBP")[:40],
        b"\xff\xd8\xff" + encoded("PNG"),
    ],
)
def test_what_is_no_complete_picture_is_refused(data):
    with pytest.raises(PictureError):
        clean_picture(data)
