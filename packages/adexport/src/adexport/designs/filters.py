"""The fixed set of filters that a placeholder may use; each is a pure function from text to text."""

import re
import unicodedata
from collections.abc import Callable
from decimal import Decimal, InvalidOperation

_SYMBOLS = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CNY": "CN¥", "INR": "₹", "KRW": "₩", "ILS": "₪"}
_NO_CENTS = {"JPY", "KRW"}
# What is not listed costs nothing but the formatting: such a cell is shown as it is written.
_CODES = (
    "AED ARS AUD BGN BRL CAD CHF CLP CNY COP CZK DKK EGP EUR GBP HKD HUF IDR ILS INR JPY KRW MXN MYR NGN NOK NZD PEN "
    "PHP PKR PLN RON RUB SAR SEK SGD THB TRY TWD UAH USD VND ZAR"
)
_WORDS = frozenset({"kr", "kr.", "zł", "Kč", "Ft", "lei", "Fr.", "Rs", "Rs.", "RM", "Rp", "лв", "лв.", "руб", "руб."})
# What stands before a number, the number, what stands after it. The dot in `Rs.99` belongs to the letters.
_PRICE = re.compile(r"(\D*?)((?:(?<![^\W\d_])[.,])?\d(?:.*\d)?)(\D*)", re.DOTALL)
# No ad shows a number near this; the cap keeps a hostile exponent from becoming a gigabyte of digits.
_LARGEST = Decimal(10) ** 15


def parse_number(text: str) -> Decimal:
    """Read a number as people write it: `1,299.90`, `1.299,90`, `1 299`, `$49`. Raises ValueError.

    The last of `,` and `.` is the decimal sign when both occur, when it is not followed by exactly
    three digits, or when only a zero stands before it; otherwise it groups thousands.
    """
    kept = "".join(_plain(char) for char in text.strip())
    marks = [char for char in kept if char in ",."]
    if marks:
        head, _, tail = kept.rpartition(marks[-1])
        decimal = len(set(marks)) == 2 or (len(marks) == 1 and (len(tail) != 3 or head in ("", "0")))
        kept = head.replace(",", "").replace(".", "") + ("." if decimal else "") + tail
    try:
        number = Decimal(kept)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or abs(number) >= _LARGEST:
        raise ValueError(f"{text[:40]!r} is not a number; write it like 1299.90")
    return number


def _plain(char: str) -> str:
    """A digit in ASCII, nothing for spaces and currency signs, else the character itself."""
    if char.isdecimal():
        return str(unicodedata.decimal(char))
    return "" if char.isspace() or unicodedata.category(char) == "Sc" else char


def _number(text: str, places: str | None = None) -> str:
    """The number with its thousands grouped; a currency sign stays where it is."""
    number = parse_number(text)
    shown = f"{abs(number):,f}" if places is None else f"{abs(number):,.{int(places)}f}"
    match = _PRICE.fullmatch(text.strip())
    before, after = (_sign(match[1]), _sign(match[3])) if match else ("", "")
    return f"{'-' if number < 0 else ''}{before.lstrip()}{shown}{after.rstrip()}"


def _sign(text: str) -> str:
    """The currency sign beside a number, with the space between them; nothing where there is none."""
    signed = any(unicodedata.category(char) == "Sc" for char in text)
    return "".join(char for char in text if char.isspace() or unicodedata.category(char) == "Sc") if signed else ""


def _currency(text: str, code: str) -> str:
    """A price in `code`, or in the currency that the cell itself names; what is no plain price stays as written."""
    match = _PRICE.fullmatch(text.strip())
    if match is None:
        return text
    before, after = match[1].replace("-", "", 1).strip(), match[3].strip()
    mark = before or after
    if (before and after) or (mark and not _is_currency(mark, code)):
        return text
    try:
        number = parse_number(match[2])
    except ValueError:
        return text
    minus = "-" if "-" in match[1] else ""
    named = _code_of(mark, code) if mark else code
    if named or mark in _SYMBOLS.values():
        return f"{minus}{_SYMBOLS.get(named, f'{named} ') if named else mark}{_amount(number, named)}"
    if after:
        return f"{minus}{_amount(number)} {after}"
    return f"{minus}{before}{' ' if before in _WORDS else ''}{_amount(number)}"


def _amount(number: Decimal, code: str = "") -> str:
    whole = code in _NO_CENTS or number == number.to_integral_value()
    return f"{number:,.{0 if whole else 2}f}"


def _code_of(mark: str, code: str) -> str:
    """The code that a mark is, or nothing: `eur` is EUR, `€` and `kr` are no codes."""
    return mark.upper() if mark.upper() in (code, *_CODES.split()) else ""


def _is_currency(mark: str, code: str) -> bool:
    """Whether `€`, `US$`, `kr` or `CHF` stands there, and not a word such as `from`."""
    letters = mark[:-1]
    signed = unicodedata.category(mark[-1]) == "Sc" and len(letters) <= 3 and (not letters or letters.isupper())
    return signed or mark in _WORDS or bool(_code_of(mark, code))


def _truncate(text: str, limit: str) -> str:
    return text if len(text) <= int(limit) else text[: max(int(limit) - 1, 0)].rstrip() + "…"


def _surround(before: str, text: str, after: str) -> str:
    return before + text + after if text else ""


# name -> (function, least arguments, most arguments)
FILTERS: dict[str, tuple[Callable[..., str], int, int]] = {
    "upper": (str.upper, 0, 0),
    "lower": (str.lower, 0, 0),
    "title": (str.title, 0, 0),
    "capitalize": (lambda text: text[:1].upper() + text[1:], 0, 0),
    "trim": (lambda text: " ".join(text.split()), 0, 0),
    "default": (lambda text, other: text if text.strip() else other, 1, 1),
    "truncate": (_truncate, 1, 1),
    "number": (_number, 0, 1),
    "currency": (_currency, 1, 1),
    "percent": (lambda text: f"{parse_number(text.replace('%', '')):f}%", 0, 0),
    "prefix": (lambda text, before: _surround(before, text, ""), 1, 1),
    "suffix": (lambda text, after: _surround("", text, after), 1, 1),
}
COUNTED = {"truncate": 10_000, "number": 9}
"""Filters whose argument is a whole number, with the largest one allowed."""
BLANK_IS_FINE = {"number", "currency", "percent"}
"""Filters that leave an empty value empty instead of calling it a bad number."""
