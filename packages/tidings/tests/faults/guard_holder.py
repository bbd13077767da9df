"""Holds a store open through the standard library's SQLite, counted as an old one: `python guard_holder.py FOLDER`."""

import asyncio
import sys
from pathlib import Path

from tidings import Service
from tidings.backends.sqlite import guard


async def main(folder: Path) -> None:
    """Open the store, say so, and stay."""
    guard.SAFE_WITH_SEVERAL = (99, 0, 0)
    async with Service("guarded", store=f"sqlite:///{folder}/guarded.db"):
        (folder / "open").touch()
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
