"""The checks against networks' rules: of a plan before it is queued, of a file once it is made."""

import math
from collections.abc import Mapping

from adexport.networks.rules import Network, Placement
from adexport.planning import FLOOR_BYTES, PHOTO_PNG_BYTES, Cell, Plan, Skipped, Target
from adexport.problems import Problem
from adexport.rendering.encoding import FORMATS

_NEAR_SIZES = 5


def targets(network: Network) -> tuple[Target, ...]:
    """Every size of a network, as targets for `adexport.planning.plan`."""
    return tuple(_target(network, placement) for placement in network.placements)


def target_for(network: Network, width: int, height: int) -> Target:
    """One size (pixels) for a network. A size it does not take accepts no format, and preflight says so."""
    placement = network.placement_for(width, height)
    if placement is None:
        return Target(width=width, height=height, network=network.name, formats=())
    return _target(network, placement)


def preflight(plan: Plan, networks: Mapping[str, Network]) -> list[Problem]:
    """What the networks will not like about a plan, before anything is queued; empty when all is well.

    Errors: a network that is not known or takes no still images, a size it does not take, a format without any size
    that accepts it.
    Warnings: a format left out for some sizes, a limit that is not known, a PNG that must lose colours to fit,
    a limit that files may not come under at all.
    """
    problems = [_unknown(name, networks) for name in _names(plan) if name not in networks]
    problems += [
        _no_stills(networks[name]) for name in _names(plan) if name in networks and not _stills(networks[name])
    ]
    problems += _sizes(plan, networks)
    problems += _formats(plan, networks)
    problems += _limits(plan, networks)
    problems += _tight(plan)
    return problems


def check_file(placement: Placement, format: str, width: int, height: int, size_bytes: int) -> list[Problem]:
    """Check one finished file (pixels, bytes) against its placement; empty when it obeys."""
    where = f"{placement.name} ({placement.size})"
    problems = []
    if format not in placement.formats:
        accepted = ", ".join(placement.formats)
        problems.append(
            Problem(
                code="format_not_accepted",
                message=f"{where} does not accept {format}.",
                action=f"Export it as one of: {accepted}.",
                size=placement.size,
                format=format,
            )
        )
    if (width, height) != (placement.width, placement.height):
        problems.append(
            Problem(
                code="wrong_size",
                message=f"The file is {width}x{height} px; {where} takes exactly {placement.size}.",
                action=f"Export the design at {placement.size}.",
                size=placement.size,
                format=format,
            )
        )
    if placement.max_bytes is not None and size_bytes > placement.max_bytes:
        problems.append(
            Problem(
                code="too_heavy",
                message=f"The file has {size_bytes:,} bytes; {where} takes at most {placement.max_bytes:,}.",
                action="Choose JPEG or WebP where accepted, or make the picture simpler.",
                size=placement.size,
                format=format,
            )
        )
    return problems


def _target(network: Network, placement: Placement) -> Target:
    return Target(
        width=placement.width,
        height=placement.height,
        network=network.name,
        placement=placement.name,
        max_bytes=placement.max_bytes,
        formats=placement.formats,
    )


def _names(plan: Plan) -> list[str]:
    return list(dict.fromkeys(target.network for target in plan.targets if target.network))


def _unknown(name: str, networks: Mapping[str, Network]) -> Problem:
    return Problem(
        code="unknown_network",
        message=f"There are no rules for the network '{name}'.",
        action=f"Choose from: {', '.join(networks)}; or add a rules file for it.",
        network=name,
    )


def _stills(network: Network) -> list[str]:
    """The formats of a network that are pictures, which is all that is written here."""
    taken = {*network.formats, *(network.any_size.formats if network.any_size else ())}
    return [name for name in FORMATS if name in taken]


def _no_stills(network: Network) -> Problem:
    return Problem(
        code="format_not_accepted",
        message=f"{network.title} takes no still images, only {', '.join(network.formats)}. {network.note}".rstrip(),
        action=f"Leave {network.title} out: pictures can be exported for other networks.",
        network=network.name,
    )


def _sizes(plan: Plan, networks: Mapping[str, Network]) -> list[Problem]:
    problems = []
    for target in plan.targets:
        network = networks.get(target.network)
        if network is None or not _stills(network) or network.placement_for(target.width, target.height) is not None:
            continue
        problems.append(
            Problem(
                code="size_not_covered",
                message=f"{network.title} has no placement of {target.size}.",
                action=f"The nearest it takes: {_nearest(network, target)}; or export {target.size} without it.",
                size=target.size,
                network=network.name,
            )
        )
    return problems


def _nearest(network: Network, target: Target) -> str:
    """The sizes that differ least in width and height by proportion, nearest first."""

    def distance(placement: Placement) -> float:
        wide, high = placement.width / target.width, placement.height / target.height
        return math.hypot(math.log(wide), math.log(high))

    sizes = dict.fromkeys(placement.size for placement in sorted(network.placements, key=distance))
    return ", ".join(list(sizes)[:_NEAR_SIZES])


def _formats(plan: Plan, networks: Mapping[str, Network]) -> list[Problem]:
    """One problem for each network and format, not one for each size."""
    groups: dict[tuple[str, str], list[Skipped]] = {}
    for skipped in plan.skipped:
        network = networks.get(skipped.target.network)
        if skipped.target.formats and (network is None or _stills(network)):  # else it is reported above
            groups.setdefault((skipped.target.network, skipped.format), []).append(skipped)
    return [_refused(plan, networks.get(name), group) for (name, _), group in groups.items()]


def _refused(plan: Plan, network: Network | None, group: list[Skipped]) -> Problem:
    first = group[0]
    made = any(cell.network == first.target.network and cell.format == first.format for cell in plan.cells)
    sizes = ", ".join(skipped.target.size for skipped in group)
    taken = {name for skipped in group for name in skipped.target.formats or ()}
    accepted = [name for name in FORMATS if name in taken]
    note = f" {network.note}" if network and network.note else ""
    return Problem(
        code="format_not_accepted",
        message=f"{network.title if network else 'The request'} does not accept {first.format} for {sizes}"
        f"{': these files are left out' if made else ''}.{note}",
        action=f"Choose one of: {', '.join(accepted)}.",
        severity="warning" if made else "error",
        size=first.target.size if len(group) == 1 else "",
        format=first.format,
        network=first.target.network,
    )


def _limits(plan: Plan, networks: Mapping[str, Network]) -> list[Problem]:
    unlimited = dict.fromkeys(
        t.network for t in plan.targets if t.network in networks and t.placement and not t.max_bytes
    )
    problems = [
        Problem(
            code="limit_unknown",
            message=f"No byte limit is known for {networks[name].title}: its files are not fitted.",
            action="Set a limit yourself, in a rules file for this network.",
            severity="warning",
            network=name,
        )
        for name in unlimited
    ]
    pngs = {
        (cell.network, cell.width, cell.height, cell.max_bytes): cell for cell in plan.cells if cell.format == "png"
    }
    for cell in pngs.values():
        expected = round(PHOTO_PNG_BYTES.at(cell.width, cell.height))
        if cell.max_bytes is not None and expected > cell.max_bytes:
            problems.append(
                Problem(
                    code="png_loses_colours",
                    message=f"A photographic PNG of {cell.width}x{cell.height} has about {expected // 1000} kB, above "
                    f"the {cell.max_bytes // 1000} kB allowed: it will be reduced to 256 colours or fewer.",
                    action="Choose JPEG for pictures with photos.",
                    severity="warning",
                    size=f"{cell.width}x{cell.height}",
                    format="png",
                    network=cell.network,
                )
            )
    return problems


def _tight(plan: Plan) -> list[Problem]:
    """One warning for each format and limit that is under what fitting can usually reach, with the sizes."""
    groups: dict[tuple[str, int], dict[str, Cell]] = {}
    for cell in plan.cells:
        if cell.max_bytes is not None and cell.max_bytes < FLOOR_BYTES[cell.format].at(cell.width, cell.height):
            groups.setdefault((cell.format, cell.max_bytes), {})[f"{cell.width}x{cell.height}"] = cell
    return [
        Problem(
            code="may_not_fit",
            message=f"Files in {format} of {', '.join(cells)} may not fit in {limit / 1000:g} kB: with a photo they "
            f"come down to about {_floors(list(cells.values()))} kB.",
            action="Raise the limit, choose WebP where accepted, or look at the preview of a size first.",
            severity="warning",
            size=next(iter(cells)) if len(cells) == 1 else "",
            format=format,
        )
        for (format, limit), cells in groups.items()
    ]


def _floors(cells: list[Cell]) -> str:
    floors = sorted(round(FLOOR_BYTES[cell.format].at(cell.width, cell.height) / 1000) for cell in cells)
    return f"{floors[0]}" if floors[0] == floors[-1] else f"{floors[0]} to {floors[-1]}"
