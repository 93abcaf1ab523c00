"""What the benchmarks share: memory of a process tree, and the table and file of the figures."""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil
from rich.console import Console
from rich.table import Table

RESULTS = Path(__file__).parent / "results"
Memory = TypeVar("Memory")


def resident(process: psutil.Process) -> int:
    """Proportional set size of a process and all its descendants, bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue  # it ended meanwhile
    return total


def watched(
    command: Sequence[str], measure: Callable[[psutil.Process], Memory], every: float = 2
) -> tuple[float, list[tuple[float, Memory]]]:
    """Runs a command to its end: seconds by the clock, and (second, memory) as it went."""
    begun = time.perf_counter()
    child = subprocess.Popen(command)
    memory: list[tuple[float, Memory]] = []
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(every):
            try:
                now = measure(psutil.Process(child.pid))
                memory.append((time.perf_counter() - begun, now))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = child.wait()
    ended.set()
    watcher.join()
    if code:
        sys.exit(code)
    return time.perf_counter() - begun, memory


def figure(
    what: str, value: float, unit: str, goal: float | None = None, *, least: bool = False
) -> dict[str, Any]:
    """A measured figure; the goal is the most it may be, or with ``least`` the least."""
    holds = None if goal is None else bool(value >= goal if least else value <= goal)
    return {"what": what, "value": value, "unit": unit, "goal": goal, "holds": holds}


def command_of(name: str, asked: argparse.Namespace, words: Sequence[str]) -> str:
    """The command ``benchmarks.NAME`` with these of its options, as they were given."""
    told = ["python", "-m", *f"benchmarks.{name}".split()]
    for word in words:
        value = getattr(asked, word)
        for each in value if isinstance(value, list) else [value] if value is not None else []:
            told += [f"--{word}", str(each)]
    return shlex.join(told)


def publish(name: str, figures: list[dict[str, Any]], **facts: Any) -> None:
    """Writes ``results/NAME.json`` and prints the table."""
    report = {
        "name": name,
        "command": f"python -m benchmarks.{name}",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "load_average": [round(load, 1) for load in os.getloadavg()],  # of 1, 5 and 15 minutes
        **facts,
        "figures": figures,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(report, indent=1) + "\n")
    table = Table("what", "value", "unit", "goal", "holds")
    for row in figures:
        goal, holds = row["goal"], {True: "yes", False: "NO", None: ""}[row["holds"]]
        table.add_row(row["what"], f"{row['value']:.3g}", row["unit"],
                      "" if goal is None else str(goal), holds)  # fmt: skip
    Console().print(table)
