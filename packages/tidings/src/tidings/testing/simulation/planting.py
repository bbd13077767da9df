"""How a bug is planted: attributes that are replaced for the length of a block."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

Patch = tuple[Any, str, Any]
"""Owner, name of the attribute, what stands there instead."""

MUTANTS: dict[str, Callable[[], list[Patch]]] = {}
"""Name -> the patches of one planted bug."""


def mutant(make: Callable[[], list[Patch]]) -> Callable[[], list[Patch]]:
    """Register a function that makes the patches of the bug it is named after."""
    MUTANTS[make.__name__.removeprefix("_")] = make
    return make


@contextmanager
def planted(name: str | None, among: Mapping[str, Callable[[], list[Patch]]] = MUTANTS) -> Iterator[None]:
    """Plant a bug for the length of the block; None plants nothing. Raises KeyError for an unknown name."""
    patches = among[name]() if name is not None else []
    before = [(owner, attribute, vars(owner)[attribute]) for owner, attribute, _ in patches]
    for owner, attribute, instead in patches:
        setattr(owner, attribute, instead)
    try:
        yield
    finally:
        for owner, attribute, original in before:
            setattr(owner, attribute, original)
