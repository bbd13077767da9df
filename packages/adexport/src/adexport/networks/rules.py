"""What a network accepts: placements with their size, formats and byte limit."""

from datetime import date

import msgspec

KNOWN_FORMATS = ("3gp", "avi", "avif", "gif", "html5", "jpeg", "mov", "mp4", "mpeg", "png", "webp")
"""Format names that rules may use, whether or not Ad Export writes them yet."""


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """One place an ad can run: `width` and `height` in CSS pixels, `formats` accepted, in alphabetical order.

    `max_bytes` counts kB as 1000 bytes, as the networks do; None means that no limit is known. `rules` says in
    words what is not checked here (animation, safe areas).
    """

    name: str
    width: int
    height: int
    formats: tuple[str, ...]
    max_bytes: int | None = None
    rules: str = ""

    @property
    def size(self) -> str:
        """The size as people write it: `300x250`."""
        return f"{self.width}x{self.height}"


class AnySize(msgspec.Struct, frozen=True, kw_only=True):
    """The rule for sizes that a network takes without listing them: bounds in pixels, both ends included."""

    min_width: int
    min_height: int
    max_width: int
    max_height: int
    formats: tuple[str, ...]
    max_bytes: int | None = None
    rules: str = ""

    def covers(self, width: int, height: int) -> bool:
        """Whether this size is within the bounds."""
        return self.min_width <= width <= self.max_width and self.min_height <= height <= self.max_height


class Network(msgspec.Struct, frozen=True, kw_only=True):
    """A network's rules as read on `as_of` from `source`; `unverified` names what no good source confirmed."""

    name: str
    title: str
    as_of: date
    source: str
    placements: tuple[Placement, ...]
    any_size: AnySize | None = None
    note: str = ""
    unverified: tuple[str, ...] = ()

    def placement_for(self, width: int, height: int) -> Placement | None:
        """The placement of exactly this size, or one made from the network's any-size rule, or None."""
        for placement in self.placements:
            if (placement.width, placement.height) == (width, height):
                return placement
        if self.any_size is None or not self.any_size.covers(width, height):
            return None
        return Placement(
            name="custom-size",
            width=width,
            height=height,
            formats=self.any_size.formats,
            max_bytes=self.any_size.max_bytes,
            rules=self.any_size.rules,
        )

    @property
    def formats(self) -> tuple[str, ...]:
        """Every format that some placement accepts, in alphabetical order."""
        return tuple(sorted({name for placement in self.placements for name in placement.formats}))
