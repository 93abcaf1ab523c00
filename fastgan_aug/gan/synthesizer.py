"""`Synthesizer`: a checkpoint that makes images. (model version, cell, seed) determines each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastgan_aug.conditions import Cell
from fastgan_aug.errors import CheckpointError
from fastgan_aug.gan.appearance import Appearance
from fastgan_aug.gan.checkpoint import CheckpointMeta, read_generator, read_meta
from fastgan_aug.gan.freed_memory import keep_freed_memory
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.randomness import latents_of_seeds
from fastgan_aug.gan.served import ServedGenerator
from fastgan_aug.gan.settings import NetworkConfig

# Convolution kernels are chosen by the shape of their input: one fixed shape, one result.
CHUNK = 16


class Synthesizer:
    """Holds a served generator.

    Attributes:
        meta: The checkpoint's facts.
        space: Factors and cells.
        class_counts: Training slices per cell; a cell with 0 is unseen.
        size: Rows and columns of an image.
        engine: What computes: library, version, device, precision.
        generator: The network as it was trained.
        run: ``Generator.forward`` by the engine.
        served: What makes the images: the same network in fewer operations.
    """

    def __init__(self, generator: Generator, meta: CheckpointMeta) -> None:
        self.meta, self.space, self.size = meta, meta.space, generator.size
        counts = meta.lineage.class_counts
        self.class_counts: dict[Cell, int] = {c: counts[str(c)] for c in self.space.cells}
        self.engine = f"torch-{torch.__version__.split('+')[0]}-cpu-fp32"
        self.generator = generator
        self.served = ServedGenerator(generator).eval().requires_grad_(False)
        self.run: Callable[[Tensor, Tensor], Tensor] = self.served
        self._vectors = torch.from_numpy(self.space.vectors)

    @classmethod
    def load(cls, folder: Path, *, threads: int | None = None) -> Self:
        """Loads a checkpoint folder after verifying the sha256 of its files.

        Args:
            folder: The checkpoint.
            threads: torch threads of this process, which then keeps a batch's memory for the next
                (`keep_freed_memory`) too; None leaves both.

        Raises:
            CheckpointError: missing, damaged, or of another format.
        """
        meta = read_meta(folder)
        if threads is not None:
            torch.set_num_threads(threads)
            keep_freed_memory()
        try:
            network = NetworkConfig(**meta.lineage.config["network"])
            cells, elements = meta.space.vectors.shape
            tensors = read_generator(folder)
            examples = tensors.get("appearance.examples", torch.zeros(cells, 0)).shape[1]
            appearance = None
            if network.appearance:
                appearance = Appearance(network.size, cells, elements, examples)
            generator = Generator(network, elements, appearance)
            generator.load_state_dict(tensors)
        except (RuntimeError, KeyError, TypeError, ValueError) as error:
            raise CheckpointError(
                f"the generator in {folder} does not fit its own configuration: {error}",
                do="use another checkpoint",
            ) from error
        return cls(generator.eval().requires_grad_(False), meta)

    @property
    def by_reference(self) -> bool:
        """Whether torch in float32 is what runs."""
        return self.run is self.served

    def run_by(self, engine: str, run: Callable[[Tensor, Tensor], Tensor]) -> None:
        """From now on computes the generator's forward pass otherwise.

        Args:
            engine: What computes.
            run: ``Generator.forward``, for batches of CHUNK.
        """
        self.engine, self.run = engine, run

    @torch.no_grad()
    def generate(
        self, cells: Sequence[Cell], seeds: NDArray[np.uint64], *, reference: bool = False
    ) -> NDArray[np.float32]:
        """Generates one image per cell and seed, byte-identical whatever stands beside it.

        Args:
            cells: (N) cells of the space.
            seeds: (N,) uint64.
            reference: Compute by torch in float32, whatever engine runs otherwise.

        Returns:
            (N, S, S) float32 in [0, 1], normalised counts.
        """
        run = self.served if reference else self.run
        index = torch.tensor([self.space.index(c) for c in cells], dtype=torch.int64)
        images = np.empty((len(cells), self.size, self.size), np.float32)
        for start in range(0, len(cells), CHUNK):
            part = slice(start, start + CHUNK)
            noise = latents_of_seeds(seeds[part], self.generator.latent_size)
            condition = self._vectors[index[part]]
            missing = CHUNK - len(noise)
            made = run(
                torch.nn.functional.pad(noise, (0, 0, 0, missing)),
                torch.nn.functional.pad(condition, (0, 0, 0, missing)),
            )
            images[part] = ((made[: len(noise), 0] + 1) / 2).clamp(0, 1).numpy()
        return images
