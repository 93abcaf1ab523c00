"""Time and memory of the whole demo: `python -m benchmarks.demo`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from benchmarks.measure import figure, publish, resident, watched

# From the project's own requirement: ten minutes, 8 GiB.
SECONDS, GIBIBYTES = 600, 8


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "demo"
        command = [sys.executable, "-m", "fastgan_aug.cli.main", "demo", "--out", str(out)]
        seconds, memory = watched(command, resident)
        results = json.loads((out / "results.json").read_text())
    peak = max(size for _, size in memory) / 2**30
    figures = [figure("whole demo", seconds, "s", SECONDS)]
    figures.append(figure("peak memory (PSS)", peak, "GiB", GIBIBYTES))
    figures.append(figure("training", results["images_per_second"], "images/s"))
    figures += [figure(f"stage {name}", value, "s") for name, value in results["seconds"].items()]
    publish(
        "demo",
        figures,
        seeds=[results["config"]["training"]["seed"]],
        config=results["config_digest"],
        dataset=results["dataset_digest"],
        counts=results["counts"],
        faithfulness=results["faithfulness"],
        usefulness=results["usefulness"],
    )


if __name__ == "__main__":
    main()
