"""lightweight-gan 1.2.1 on a CPU, by its own training loop.

    pip install --no-deps --target FOLDER lightweight-gan==1.2.1 adabelief-pytorch einops
    pip install --no-deps --target FOLDER kornia kornia_rs tabulate colorama

It asserts a CUDA device and imports torchvision for reading picture files. Both are got round
without touching what it computes: its source is read with ``cpu`` for ``cuda``, and torchvision
is an empty module, since the slices are handed over as tensors.
"""

from __future__ import annotations

import itertools
import sys
import types
from pathlib import Path
from typing import Any

import torch

# Its average begins after 20,000 steps: one is measured as they mostly are.
FIRST_STEP = 20_004
GRADIENT_PENALTY_EVERY = 4
BATCH = 4  # its default; a process takes 2 GiB
FOR_CPU = {
    "torch.cuda.is_available()": "True",
    ".cuda(self.rank)": "",
    "self.cuda(rank)": "self.cpu()",
    "f'cuda:{self.rank}'": "'cpu'",
}


def loaded(folder: Path) -> Any:
    """Its module, from the folder that it was installed into."""
    sys.path.append(str(folder))  # last: what is installed here goes before
    vision: Any = types.ModuleType("torchvision")
    vision.transforms = types.ModuleType("torchvision.transforms")
    sys.modules.setdefault("torchvision", vision)
    path = folder / "lightweight_gan" / "lightweight_gan.py"
    source = path.read_text()
    for old, new in FOR_CPU.items():
        if old not in source:
            raise SystemExit(f"{path} is not the source of lightweight-gan 1.2.1: no {old!r}")
        source = source.replace(old, new)
    package = types.ModuleType("lightweight_gan")
    package.__path__ = [str(path.parent)]
    sys.modules["lightweight_gan"] = package
    module = types.ModuleType("lightweight_gan.lightweight_gan")
    module.__file__ = str(path)
    exec(compile(source, path, "exec"), module.__dict__)
    return module


def trainer(folder: Path, size: int, feature_maps: int, scratch: Path) -> Any:
    """Its trainer of grey slices; ``train()`` is one step of it.

    Args:
        folder: What it was installed into.
        size: Rows and columns.
        feature_maps: Its ``fmap_max``, 512 by default; other settings are its defaults.
        scratch: Where it makes its folders.
    """
    never = 10**9
    made = loaded(folder).Trainer(
        image_size=size, fmap_max=feature_maps, batch_size=BATCH, greyscale=True,
        use_aim=False, base_dir=scratch, save_every=never, evaluate_every=never, aug_prob=0.0,
    )  # fmt: skip
    made.steps = FIRST_STEP
    slices = torch.rand(BATCH, 1, size, size, generator=torch.Generator().manual_seed(0))
    made.loader = (slices.clone() for _ in itertools.count())
    return made
