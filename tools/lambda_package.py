"""Builds build/lambda: what the function of deploy/template.yaml needs, from the locks; `make lambda-package` runs it.

AWS takes 250 MB unzipped. What only the API service needs is left out, and so are botocore's descriptions of services
that the function does not call. Build it on Linux x86_64 with the Python of the template.
"""

import compileall
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from py_compile import PycInvalidationMode

ROOT = Path(__file__).resolve().parent.parent
TARGET = ROOT / "build/lambda"
LIMIT = 250 * 1024 * 1024
ONLY_THE_API = (
    "asyncpg", "apsw", "fastapi", "uvicorn", "starlette", "pydantic", "pydantic_core", "rich", "pygments", "jinja2",
    "python_multipart", "multipart", "node_modules", "bin",
)  # fmt: skip
DESCRIBED = {"s3", "sqs", "sns", "sts", "sso", "sso-oidc", "signin"}


def constraints() -> str:
    """The pins of the locks, with their markers and without their hashes."""
    lines = [line for name in ("run", "test") for line in (ROOT / f"requirements/{name}.lock").read_text().splitlines()]
    pins = {line.removesuffix("\\").rstrip() for line in lines if line[:1].isalnum()}
    return "\n".join(sorted(pins))


def install() -> None:
    """Install both packages with what they need. Raises CalledProcessError."""
    shutil.rmtree(TARGET, ignore_errors=True)
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as file:
        file.write(constraints())
        file.flush()
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-compile",
                   "--no-build-isolation", "--only-binary", ":all:", "--target", str(TARGET), "-c", file.name,
                   str(ROOT / "packages/tidings") + "[aws,bullmq,apsw,cli,postgres]",
                   str(ROOT / "packages/adexport") + "[cloud]"]  # fmt: skip
        subprocess.run(command, check=True)


def prune() -> None:
    """Remove what the function never loads."""
    for name in ONLY_THE_API:
        shutil.rmtree(TARGET / name, ignore_errors=True)
    for path in (TARGET / "botocore/data").iterdir():
        if path.is_dir() and path.name not in DESCRIBED:
            shutil.rmtree(path)
    for path in [*TARGET.rglob("__pycache__"), *TARGET.glob("numpy/**/tests")]:
        shutil.rmtree(path, ignore_errors=True)


def compile_all() -> None:
    """Bytecode beside every module: AWS could not write any, so each cold start would compile for half a second.

    Nothing in it goes by a time of change, which the way through a zip may alter.
    """
    compileall.compile_dir(TARGET, quiet=2, workers=0, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH)


def size() -> int:
    """Bytes of all files, as AWS counts them."""
    return sum(path.stat().st_size for path in TARGET.rglob("*") if path.is_file())


def main() -> None:
    """Build it, and say how large it is."""
    install()
    prune()
    compile_all()
    print(f"{TARGET.relative_to(ROOT)}: {size() / 1024 / 1024:.0f} MB of {LIMIT // 1024 // 1024} MB")
    if size() > LIMIT:
        sys.exit("AWS does not take it.")


if __name__ == "__main__":
    main()
