"""A process that receives: `python consumer.py URL [HOLD]` prints the id of each job that it has.

With HOLD it takes one job at a time and settles it that many seconds later; tests kill it meanwhile.
"""

import asyncio
import sys
from random import Random

from tidings.backends.bullmq import open_transport
from tidings.events import envelope_from_json
from tidings.service import system_clock, uuid7_ids
from tidings.world import World


async def main(url: str, hold: float) -> None:
    transport = open_transport(url, World(system_clock, Random(), uuid7_ids))
    await transport.open()
    while True:
        deliveries = await transport.receive(1 if hold else 100)
        for delivery in deliveries:
            print(envelope_from_json(delivery.body).id, flush=True)
        await asyncio.sleep(hold)
        await transport.settle(deliveries)
        print(f"settled {len(deliveries)}", flush=True)


asyncio.run(main(sys.argv[1], float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
