"""Time and memory of the whole demo: `python -m benchmarks.demo`."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console
from rich.table import Table

RESULT = Path(__file__).parent / "results" / "demo.json"
# From the project's own requirement: ten minutes, 8 GiB.
SECONDS, GIBIBYTES = 600, 8


def resident(process: psutil.Process) -> int:
    """Proportional set size of a process and all its descendants, bytes."""
    total = 0
    for member in [process, *process.children(recursive=True)]:
        try:
            total += member.memory_full_info().pss
        except psutil.Error:
            continue  # it ended meanwhile
    return total


def run(out: Path) -> tuple[float, int]:
    """Runs the demo; seconds by the clock and peak bytes."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "fastgan_aug.cli.main", "demo", "--out", str(out)]
    child = subprocess.Popen(command)
    peak, ended = 0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(2):
            try:
                peak = max(peak, resident(psutil.Process(child.pid)))
            except psutil.Error:
                return

    watcher = threading.Thread(target=watch)
    watcher.start()
    code = child.wait()
    ended.set()
    watcher.join()
    if code:
        sys.exit(code)
    return time.perf_counter() - begun, peak


def figure(what: str, value: float, unit: str, goal: float | None = None) -> dict[str, Any]:
    holds = None if goal is None else value <= goal
    return {"what": what, "value": value, "unit": unit, "goal": goal, "holds": holds}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        seconds, peak = run(out)
        results = json.loads((out / "results.json").read_text())
    figures = [figure("whole demo", seconds, "s", SECONDS)]
    figures.append(figure("peak memory (PSS)", peak / 2**30, "GiB", GIBIBYTES))
    figures.append(figure("training", results["images_per_second"], "images/s"))
    figures += [figure(f"stage {name}", value, "s") for name, value in results["seconds"].items()]
    report = {
        "name": "demo",
        "command": "python -m benchmarks.demo",
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, no GPU used",
        "seeds": [results["config"]["training"]["seed"]],
        "config": results["config_digest"],
        "dataset": results["dataset_digest"],
        "figures": figures,
        "counts": results["counts"],
        "faithfulness": results["faithfulness"],
        "usefulness": results["usefulness"],
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(report, indent=1) + "\n")
    table = Table("what", "value", "unit", "goal", "holds")
    for row in figures:
        goal, holds = row["goal"] or "", {True: "yes", False: "NO", None: ""}[row["holds"]]
        table.add_row(row["what"], f"{row['value']:.2f}", row["unit"], str(goal), holds)
    Console().print(table)


if __name__ == "__main__":
    main()
