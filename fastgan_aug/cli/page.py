"""What the HTML pages share: rendering, slices in colour, plots as data URIs."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastgan_aug.storage import replace_when_complete

if TYPE_CHECKING:
    from matplotlib.figure import Figure

COUNTS, SPREAD = "inferno", "viridis"  # colour maps of counts, and of their SD
# Two colours that colour-blind readers tell apart, of the first and the second data set.
FIRST, SECOND = "#2a6f97", "#d1603d"
INK = "#55606e"


def write_page(template: str, target: Path, content: dict[str, Any]) -> None:
    """Renders a template beside the target and renames it.

    Raises:
        StorageError: it cannot be written.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("fastgan_aug.cli", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = figure
    page = environment.get_template(template).render(**content)
    with replace_when_complete(target) as temporary:
        temporary.write_text(page, encoding="utf-8")


def figure(value: float) -> str:
    """A number short enough to read: two or three digits, a dash for NaN."""
    if not np.isfinite(value):
        return "–"
    if value and abs(value) < 1e-3:
        return f"{value:.1e}".replace("e-0", "e-")
    if abs(value) >= 100:
        return f"{value:.0f}"
    return f"{value:.2f}" if abs(value) >= 0.1 or not value else f"{value:.2g}"


def slice_uri(image: NDArray[np.floating[Any]], peak: float = 1.0, colours: str = COUNTS) -> str:
    """A slice in colour, one pixel a pixel.

    Args:
        image: (S, S).
        peak: Value of the brightest colour; 0 has the darkest.
        colours: Name of a matplotlib colour map.

    Returns:
        Data URI of a PNG.
    """
    from PIL import Image

    level = np.clip(np.asarray(image, np.float64) / (peak or 1.0), 0, 1)
    picture = Image.fromarray((level * 255).round().astype(np.uint8), "L").convert("P")
    picture.putpalette(_palette(colours))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return png_uri(stream.getvalue())


def _palette(colours: str) -> list[int]:
    from matplotlib import colormaps

    rgb = colormaps[colours](np.arange(256))[:, :3]
    return [int(v) for v in (rgb * 255).round().ravel()]


def scale_uri(colours: str = COUNTS) -> str:
    """A colour bar, darkest on the left."""
    from PIL import Image

    picture = Image.fromarray(np.tile(np.arange(256, dtype=np.uint8), (8, 1)), "L").convert("P")
    picture.putpalette(_palette(colours))
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=True)
    return png_uri(stream.getvalue())


def png_uri(png: bytes) -> str:
    """Data URI of a PNG."""
    return "data:image/png;base64," + base64.b64encode(png).decode()


def new_plot(width: float, height: float, columns: int = 1) -> tuple[Figure, list[Any]]:
    """A quiet figure and its axes, side by side; inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    plot = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(plot)
    axes = list(plot.subplots(1, columns, squeeze=False).flat)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.spines[["left", "bottom"]].set_color("#c3cad3")
        axis.tick_params(colors=INK, labelsize=8, length=3)
        axis.xaxis.label.set(fontsize=9, color=INK)
        axis.yaxis.label.set(fontsize=9, color=INK)
    return plot, axes


def plot_uri(plot: Figure) -> str:
    """Data URI of a plot; names in it are written as they are, also with dollar signs."""
    from matplotlib.text import Text

    for text in plot.findobj(Text):
        text.set_parse_math(False)
    stream = io.BytesIO()
    plot.savefig(stream, format="png", dpi=150, metadata={"Software": None})
    return png_uri(stream.getvalue())
