"""What compressing images saves and costs: `python -m benchmarks.compression CHECKPOINT`."""

from __future__ import annotations

import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.measure import figure, publish
from fastgan_aug.gan.synthesizer import Synthesizer

IMAGES, ROUNDS, SEED = 256, 5, 0


def main() -> None:
    synthesizer = Synthesizer.load(Path(sys.argv[1]), threads=1)
    cells = [synthesizer.space.cells[i % len(synthesizer.space.cells)] for i in range(IMAGES)]
    seeds = np.arange(IMAGES, dtype=np.uint64) + SEED
    codings: dict[str, Callable[[bytes], bytes]] = {
        "zstd 1": lambda data: pa.Codec("zstd", 1).compress(data, asbytes=True),
        "zstd 3": lambda data: pa.Codec("zstd", 3).compress(data, asbytes=True),
        "gzip 1": lambda data: zlib.compress(data, 1),
        "gzip 6": lambda data: zlib.compress(data, 6),
    }
    made, data = [], b""
    times: dict[str, list[float]] = {name: [] for name in codings}
    left = dict.fromkeys(codings, 1.0)
    for _ in range(ROUNDS):
        began = time.perf_counter()
        data = synthesizer.generate(cells, seeds).tobytes()
        made.append(time.perf_counter() - began)
        for name, compress in codings.items():
            began = time.perf_counter()
            left[name] = len(compress(data)) / len(data)
            times[name].append(time.perf_counter() - began)
    figures = []
    for name in codings:
        cost = float(np.median(np.asarray(times[name]) / np.asarray(made)))
        figures += [
            figure(f"{name}: size left", left[name], "of float32"),
            figure(f"{name}: speed", len(data) / float(np.median(times[name])) / 1e6, "MB/s"),
            figure(f"{name}: of the time to generate them", cost, ""),
        ]
    meta = synthesizer.meta
    publish("compression", figures, seeds=[SEED], images=IMAGES, rounds=ROUNDS,
            checkpoint=meta.digest, dataset=meta.lineage.dataset_digest,
            config=meta.lineage.config_digest)  # fmt: skip


if __name__ == "__main__":
    main()
