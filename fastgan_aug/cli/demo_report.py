"""The demo's report: one self-contained HTML page."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastgan_aug.storage import replace_when_complete

if TYPE_CHECKING:
    from fastgan_aug.cli.demo import DemoResults
    from fastgan_aug.data.dataset import Dataset

PER_CELL = 6


def write_report(results: DemoResults) -> Path:
    """Writes ``report.html`` into the demo's folder; pictures are inside it.

    Raises:
        StorageError: it cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fastgan_aug.cli", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
    )
    environment.filters["fixed"] = lambda value, digits=3: f"{value:.{digits}f}"
    page = environment.get_template("demo_report.html.jinja").render(**_content(results))
    target = results.folder / "report.html"
    with replace_when_complete(target) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return target


def _content(results: DemoResults) -> dict[str, Any]:
    from downstream.report import usefulness_table
    from fastgan_aug.cli.downstream_plots import scores
    from fastgan_aug.quality.clinical.counts import laterality_note

    (judgement,) = results.usefulness.judgements
    return {
        "results": results,
        "summary": results.summary(),
        "laterality": laterality_note(results.dataset.meta),
        "verdicts": judgement.comparisons,
        "usefulness_rows": usefulness_table(judgement),
        "chosen": judgement.how,
        "pictures": {
            "pairs": _data_uri(_pairs(results)),
            "curves": _data_uri(_curves(results)),
            "usefulness": scores(judgement),
            "data": _data_uri((results.folder / "data.png").read_bytes()),
        },
    }


def _data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _pairs(results: DemoResults) -> bytes:
    """Real slices on the left, synthetic ones on the right, a row a cell."""
    from fastgan_aug.quality.pictures import picture_grid

    rows = {}
    for cell, count in results.train.class_counts.items():
        synthetic = results.samples[[c == str(cell) for c in results.sample_cells]][:PER_CELL]
        if count and len(synthetic):
            real = results.train.images[_real_rows(results.train, cell)]
            gap = np.zeros((PER_CELL - len(real) + 1, *real.shape[1:]), np.float32)
            caption = (
                f"{cell}: {len(real)} real on the left, {len(synthetic)} synthetic on the right"
            )
            rows[caption] = np.concatenate([real, gap, synthetic])
    return picture_grid(rows)


def _real_rows(dataset: Dataset, cell: Any) -> np.ndarray[Any, Any]:
    rows = np.flatnonzero(dataset.cell_index == dataset.meta.space.index(cell))
    return np.random.default_rng(0).permutation(rows)[:PER_CELL]


def _curves(results: DemoResults) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    axis = figure.subplots()
    seen = [point["images_seen"] for point in results.curve]
    for name in ("loss_real", "loss_fake", "loss_reconstruction", "loss_generator"):
        values = [point[name] for point in results.curve]
        axis.plot(seen, values, label=name.removeprefix("loss_"))
    axis.set_xlabel("real images seen")
    axis.set_ylabel("loss")
    axis.legend(frameon=False, ncols=4)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return stream.getvalue()
