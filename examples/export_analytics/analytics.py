"""Figures about Ad Export's exports, by a service of its own that may start years later and reads all that happened.

Run it, beside Ad Export or without:

    python analytics.py                                                 Ad Export's own file, data/adexport.db
    python analytics.py postgresql://localhost/adexport                 its database
    python analytics.py LOG STORE                                       figures in another place than figures.db
    python analytics.py --watch                                         go on, and print whenever a figure changes
    python analytics.py --json                                          for programs
"""

import argparse
import asyncio
import json

from projection import LATE, Figures, declare

from tidings import Service, StoreError


def service_of(log: str, store: str) -> tuple[Service, Figures]:
    """Return the service, which follows Ad Export's log and keeps its own store, and its figures."""
    service = Service("export_analytics", store=store, landing=log)
    return service, declare(service)


async def show(figures: Figures, *, as_json: bool) -> None:
    """Print the figures."""
    found = await figures.now()
    if as_json:
        print(json.dumps(found), flush=True)
        return
    for title, values in found.items():
        print(f"{title.replace('_', ' ')}: ", ", ".join(f"{name} {value}" for name, value in values.items()) or "none")


async def main(log: str, store: str, *, watch: bool, as_json: bool) -> None:
    """Take in what has happened until now, and print what it comes to."""
    service, figures = service_of(log, store)
    async with service:
        await service.wait_until_followed()
        await figures.projection.wait_until_caught_up(patience=LATE)
        await show(figures, as_json=as_json)
        if watch:
            async for _ in figures.changes():
                await show(figures, as_json=as_json)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "log", nargs="?", default="sqlite+apsw:///data/adexport.db", help="where Ad Export's events are"
    )
    parser.add_argument("store", nargs="?", default="sqlite:///figures.db", help="this service's own store")
    parser.add_argument("--watch", action="store_true")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    try:
        asyncio.run(main(given.log, given.store, watch=given.watch, as_json=given.json))
    except StoreError as error:
        parser.exit(1, f"{error}\n")
