"""The generator in ONNX Runtime: half as fast again as torch on a CPU, within 1e-5 of it.

Measured by `python -m benchmarks.engine`; docs/service.md has the figures of all engines that were
tried, and why the faster ones in bfloat16 are not here.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from fastgan_aug.errors import ConfigError
from fastgan_aug.gan.networks import Generator
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer

OPSET = 17


def use_onnx_runtime(synthesizer: Synthesizer, threads: int) -> None:
    """Lets ONNX Runtime compute a synthesizer's images from now on; its engine says so.

    Latents stay an input, so that the same seeds mean the same noise in every engine.

    Args:
        synthesizer: Of a loaded checkpoint.
        threads: Of this process.

    Raises:
        ConfigError: ONNX Runtime is not installed.
    """
    try:
        import onnxruntime
    except ModuleNotFoundError as error:
        raise ConfigError(
            "serving.engine is 'onnxruntime', which is not installed",
            allowed="'torch', or an environment with onnx and onnxruntime",
            do="pip install 'fastgan-aug[onnx]'",
        ) from error
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(
        _exported(synthesizer), options, providers=["CPUExecutionProvider"]
    )

    def run(latents: Tensor, condition: Tensor) -> Tensor:
        inputs = {"latents": latents.numpy(), "condition": condition.numpy()}
        return torch.from_numpy(session.run(["images"], inputs)[0])

    synthesizer.run_by(f"onnxruntime-{onnxruntime.__version__}-cpu-fp32", run)


class _Served(nn.Module):
    """The forward pass with latents and condition as its only inputs."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, latents: Tensor, condition: Tensor) -> Tensor:
        """(CHUNK, 1, S, S) in (-1, 1)."""
        images: Tensor = self.generator(latents, condition)
        return images


def _exported(synthesizer: Synthesizer) -> bytes:
    """The forward pass at the one batch size that is served, as an ONNX model."""
    generator = synthesizer.generator
    condition = torch.from_numpy(synthesizer.space.vectors)[:1].repeat(CHUNK, 1)
    with TemporaryDirectory(prefix="fastgan-aug-") as folder, warnings.catch_warnings():
        file = Path(folder) / "generator.onnx"
        # Of torch's exporter, about itself; the newer one cannot trace the appearance's draw.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Served(generator),
            (torch.zeros(CHUNK, generator.latent_size), condition),
            file,
            dynamo=False,
            opset_version=OPSET,
            input_names=["latents", "condition"],
            output_names=["images"],
        )
        return file.read_bytes()
