"""Colours: `#rgb`, `#rrggbb`, `#rrggbbaa`, `rgb()`, `rgba()` and a few names, to a 32-bit ARGB number."""

import re

_NAMES = {"black": 0xFF000000, "white": 0xFFFFFFFF, "transparent": 0x00000000}
_HEX = re.compile(r"#([0-9a-fA-F]{3}|[0-9a-fA-F]{4}|[0-9a-fA-F]{6}|[0-9a-fA-F]{8})")
_RGB = re.compile(r"rgba?\(\s*(\d{1,3})\s*,\s*(\d{1,3})\s*,\s*(\d{1,3})\s*(?:,\s*(0|1|0?\.\d+|1\.0+)\s*)?\)")


def parse_colour(text: str) -> int:
    """Read a colour to 0xAARRGGBB. Raises ValueError that names the text and what is allowed."""
    text = text.strip()
    if text.lower() in _NAMES:
        return _NAMES[text.lower()]
    if match := _HEX.fullmatch(text):
        return _from_hex(match[1])
    if match := _RGB.fullmatch(text.lower()):
        red, green, blue = (int(part) for part in match.group(1, 2, 3))
        if max(red, green, blue) <= 255:
            return round(float(match[4] or 1) * 255) << 24 | red << 16 | green << 8 | blue
    raise ValueError(f"{text[:40]!r} is not a colour; use #rrggbb, #rrggbbaa, rgb(r, g, b) or rgba(r, g, b, 0.5)")


def _from_hex(digits: str) -> int:
    if len(digits) <= 4:
        digits = "".join(digit * 2 for digit in digits)
    rgb, alpha = digits[:6], digits[6:] or "ff"
    return int(alpha + rgb, 16)
