"""A small frame for measuring beside neighbours: interleaved rounds, medians, ratios, goals, versions and settings.

A machine that is shared or heats up changes speed by the minute. So every case runs once in each round, each round
begins with another case, and what is compared is the ratio within a round: its median over the rounds is printed.
"""

import gc
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version


@dataclass(frozen=True)
class Case:
    """One thing that is measured once a round.

    `measure` returns one round's figures by name: a rate in events per second, or latencies in milliseconds.
    """

    measure: Callable[[], Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Goal:
    """What a figure shall be beside others; of several the one with the best median counts.

    `at_least` is a ratio of rates, `at_most` a ratio of latencies. Without `beside`, `at_most` is the 99th percentile
    in milliseconds.
    """

    figure: str
    beside: tuple[str, ...] = ()
    at_least: float | None = None
    at_most: float | None = None


class Results:
    """Every figure of every round."""

    def __init__(self) -> None:
        self._rounds: dict[str, list[list[float]]] = {}

    def add(self, figures: Mapping[str, Sequence[float]]) -> None:
        """Take in one round's figures."""
        for name, values in figures.items():
            self._rounds.setdefault(name, []).append(list(values))

    def __contains__(self, name: str) -> bool:
        return name in self._rounds

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._rounds))

    def median(self, name: str) -> float:
        """Return the median over the rounds of a round's median."""
        return statistics.median(self._medians(name))

    def spread(self, name: str) -> tuple[float, float]:
        """Return the lowest and the highest round's median."""
        medians = self._medians(name)
        return min(medians), max(medians)

    def percentile(self, name: str, percent: float) -> float:
        """Return a percentile of all rounds' values together, by the nearest rank."""
        values = sorted(value for values in self._rounds[name] for value in values)
        return values[min(len(values) - 1, int(len(values) * percent / 100))]

    def ratio(self, name: str, beside: str) -> float:
        """Return the median over the rounds of the ratio of two figures of the same round."""
        return statistics.median(a / b for a, b in zip(self._medians(name), self._medians(beside), strict=True))

    def is_latency(self, name: str) -> bool:
        """Say whether a figure has many values a round: latencies, not a rate."""
        return any(len(values) > 1 for values in self._rounds[name])

    def _medians(self, name: str) -> list[float]:
        return [statistics.median(values) for values in self._rounds[name]]


def run_rounds(cases: Sequence[Case], rounds: int) -> Results:
    """Measure every case once a round; each round begins with the next case."""
    results = Results()
    for number in range(rounds):
        began = time.perf_counter()
        start = number % len(cases)
        for case in (*cases[start:], *cases[:start]):
            gc.collect()
            results.add(case.measure())
        print(f"round {number + 1} of {rounds}: {time.perf_counter() - began:.0f} s", file=sys.stderr, flush=True)
    return results


def verdict(results: Results, goal: Goal) -> str | None:
    """Return a goal's row of the table; None if one of its figures was not measured."""
    beside = [name for name in goal.beside if name in results]
    if goal.figure not in results or (goal.beside and not beside):
        return None
    if not beside:
        reached, neighbour = results.percentile(goal.figure, 99), "p99, ms"
    else:
        best = min if goal.at_most is not None else max
        neighbour = best(beside, key=results.median)
        reached = results.ratio(goal.figure, neighbour)
    met = reached >= goal.at_least if goal.at_least is not None else reached <= (goal.at_most or 0)
    wanted = f"≥ {goal.at_least:g}" if goal.at_least is not None else f"≤ {goal.at_most:g}"
    return f"| {goal.figure} | {neighbour} | {reached:.2f} | {wanted} | {'met' if met else 'MISSED'} |"


def print_report(results: Results, goals: Sequence[Goal], settings: Mapping[str, str]) -> None:
    """Print settings, figures and goals as Markdown."""
    for name, value in settings.items():
        print(f"- {name}: {value}")
    print("\n| rate, events/s | median | lowest round | highest round |\n|---|---:|---:|---:|")
    for name in (name for name in results if not results.is_latency(name)):
        low, high = results.spread(name)
        print(f"| {name} | {results.median(name):,.0f} | {low:,.0f} | {high:,.0f} |")
    print("\n| latency, ms | p50 | p99 | highest |\n|---|---:|---:|---:|")
    for name in (name for name in results if results.is_latency(name)):
        p50, p99, top = results.median(name), results.percentile(name, 99), results.percentile(name, 100)
        print(f"| {name} | {p50:.2f} | {p99:.2f} | {top:.2f} |")
    print("\n| goal | beside | reached | wanted | |\n|---|---|---:|---:|---|")
    rows = {goal: verdict(results, goal) for goal in goals}
    for row in rows.values():
        if row is not None:
            print(row)
    for goal in (goal for goal, row in rows.items() if row is None):
        print(f"| {goal.figure} | {', '.join(goal.beside)} | not measured | | |")


def machine() -> dict[str, str]:
    """Return what the figures were seen on."""
    return {
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def installed(*packages: str) -> dict[str, str]:
    """Return the versions of packages of this environment."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
