"""A process that keeps both versions of the balances; it may kill itself at a point, as a power cut would.

python balances_service.py STORE [--die POINT TIMES] [--swap | --publish EVENTS]
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from accounts import Deposited, balances, bank

from tidings import points
from tidings.consuming import projecting
from tidings.sourcing import replay


def die_at(point: str, times: int) -> None:
    """Kill this process when it reaches a point for the n-th time."""
    left = times

    def visit(reached: str) -> None:
        nonlocal left
        left -= reached == point
        if left <= 0:
            os.kill(os.getpid(), signal.SIGKILL)

    points.watch(visit)


async def main(args: argparse.Namespace) -> None:
    projecting.PAGE = 500  # several pages, so that one can be the second
    service = bank(args.store)
    balances(service, 1)
    balances(service, 2, batched=True, inline=args.inline)
    async with service:
        if args.die:
            die_at(args.die[0], int(args.die[1]))
        if args.swap:
            await replay.swap(service.store, "balances", 2, patience=30)
            return
        for number in range(args.publish):
            await service.publish(Deposited(account=f"p{number % 5}", cents=1))
        if not args.publish:
            await asyncio.Event().wait()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("store")
    parser.add_argument("--die", nargs=2)
    parser.add_argument("--swap", action="store_true")
    parser.add_argument("--inline", action="store_true")
    parser.add_argument("--publish", type=int, default=0)
    asyncio.run(main(parser.parse_args()))
