"""Pictures of slices."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

CAPTION, GAP = 14, 2


def picture_grid(rows: Mapping[str, NDArray[np.float32]], scale: int = 2) -> bytes:
    """One captioned row of images per entry, grey, black at 0 and white at 1.

    Args:
        rows: ``{caption: (n, S, S) float32 in [0, 1]}``.
        scale: Edge of a pixel in the picture.

    Returns:
        PNG.
    """
    from PIL import Image, ImageDraw

    size = max(images.shape[1] for images in rows.values()) * scale
    columns = max(len(images) for images in rows.values())
    canvas = Image.new("L", (columns * (size + GAP), len(rows) * (size + GAP + CAPTION)), 0)
    pen = ImageDraw.Draw(canvas)
    for i, (caption, images) in enumerate(rows.items()):
        top = i * (size + GAP + CAPTION)
        pen.text((2, top + 1), caption, fill=200)
        for j, image in enumerate(images):
            pixels = Image.fromarray((np.clip(image, 0, 1) * 255).round().astype(np.uint8))
            canvas.paste(pixels.resize((size, size), Image.Resampling.NEAREST),
                         (j * (size + GAP), top + CAPTION))  # fmt: skip
    stream = io.BytesIO()
    canvas.save(stream, "PNG")
    return stream.getvalue()
