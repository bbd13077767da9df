"""Run the ```py blocks of a page, in order, on one loop:  python run_page.py PAGE URL

They have a language of their own because they need a Postgres, which the runner of all other pages does not have.
"""

import ast
import asyncio
import inspect
import os
import re
import sys
from pathlib import Path
from types import ModuleType

BLOCK = re.compile(r"^```py\n(.*?)^```$", re.DOTALL | re.MULTILINE)
URL = "postgresql://localhost/shop"
"""What the pages write, and this replaces."""


def main(page: Path, url: str) -> None:
    if page.stem == "django":
        os.environ |= {"DJANGO_SETTINGS_MODULE": "settings", "DATABASE_URL": url}
        sys.path.insert(0, str(Path(__file__).resolve().parents[4] / "examples/django_orders"))
    module = sys.modules["page"] = ModuleType("page")
    blocks = BLOCK.findall(page.read_text("utf-8"))
    assert blocks, f"{page} has no code"
    with asyncio.Runner() as runner:
        for number, block in enumerate(blocks, 1):
            place = f"{page.name} block {number}"
            code = compile(block.replace(URL, url), place, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
            result = eval(code, module.__dict__)
            if inspect.iscoroutine(result):
                runner.run(result)
    print("every block ran")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
