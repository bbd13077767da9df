"""Versions of projections: those that the code declares are written to the store, and one of each is live."""

import logging
from collections.abc import Sequence

from tidings.consuming.subscription import Projected, Subscription
from tidings.errors import ServiceError, SubscriptionVanishedError
from tidings.rows import ProjectionRow
from tidings.statements import Statements

log = logging.getLogger("tidings")


async def register_versions(statements: Statements, service: str, subscriptions: Sequence[Subscription]) -> set[str]:
    """Write the versions that a service declares; return the subscriptions of those that nobody need declare.

    Of a projection that is new the highest version is live at once; else a version becomes so when it is swapped in.
    Raises SubscriptionVanishedError when a live version is no longer declared, ServiceError when another service has
    the projection, or another projection a table of it.
    """
    known = await statements.projections()
    declared = [(one.projection, one.name) for one in subscriptions if one.projection is not None]
    rows: list[ProjectionRow] = []
    for projected, subscription in declared:
        rows.append(_row(service, projected, subscription, [*known, *rows]))
        await statements.register_projection(rows[-1])
    live = {row.name for row in known if row.live}
    for name in sorted({one.name for one, _ in declared} - live):
        await statements.go_live(name, max(one.version for one, _ in declared if one.name == name))
    names = {subscription for _, subscription in declared}
    left = [row for row in known if row.service == service and row.subscription not in names]
    for row in left:
        _check_retired(row)
    return {row.subscription for row in left}


def _row(service: str, projected: Projected, subscription: str, known: Sequence[ProjectionRow]) -> ProjectionRow:
    other = next((row.service for row in known if row.name == projected.name and row.service != service), None)
    if other is not None:
        raise ServiceError(
            f"The projection {projected.name} belongs to the service {other} on this store: give it another name."
        )
    for row in known:
        if row.name != projected.name and (shared := sorted({*row.tables} & {*projected.tables})):
            raise ServiceError(
                f"The projections {row.name} and {projected.name} would both keep the table {shared[0]}, and a rebuild "
                "of one would empty the other: give it another name in braces in one of their schemas."
            )
    return ProjectionRow(projected.name, projected.version, service, subscription, projected.tables, projected.inline)


def _check_retired(row: ProjectionRow) -> None:
    if row.live:
        raise SubscriptionVanishedError(
            f"Queries read version {row.version} of the projection {row.name}, and the code no longer declares it: "
            f"nothing would keep it current. Declare it beside the next version until that one is swapped in "
            f"(`tidings projection swap {row.name}`), or give it up with `tidings projection drop {row.name} "
            f"--version {row.version}`."
        )
    log.warning(
        "Version %d of the projection %s is not live, and this release does not declare it: if no other does, remove "
        "it with `tidings projection drop %s --version %d`.",
        row.version,
        row.name,
        row.name,
        row.version,
    )
