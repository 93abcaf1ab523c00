"""The generator in OpenVINO, float32: faster than torch on a CPU, within 1e-5 of it.

Measured by `python -m benchmarks.engine`; docs/service.md has the figures of all engines that were
tried, and why those in bfloat16 are not here.
"""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from fastgan_aug.errors import ConfigError
from fastgan_aug.gan.served import ServedGenerator
from fastgan_aug.gan.synthesizer import CHUNK, Synthesizer


def use_openvino(synthesizer: Synthesizer, threads: int) -> None:
    """Lets OpenVINO compute a synthesizer's images from now on; its engine says so.

    What the network is given is drawn by torch, so that the same seeds mean the same slice in
    every engine.

    Args:
        synthesizer: Of a loaded checkpoint.
        threads: Of this process.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ModuleNotFoundError as error:
        raise ConfigError(
            "serving.engine is 'openvino', which is not installed",
            allowed="'torch', or an environment with openvino",
            do="pip install 'fastgan-aug[openvino]'",
        ) from error
    served = synthesizer.served
    with torch.no_grad(), warnings.catch_warnings():
        # Of torch's tracing, which OpenVINO's converter calls, about itself.
        warnings.simplefilter("ignore", DeprecationWarning)
        example = served.given(
            torch.zeros(CHUNK, synthesizer.generator.latent_size),
            torch.from_numpy(synthesizer.space.vectors)[:1].repeat(CHUNK, 1),
        )
        model = openvino.convert_model(
            _Images(served), example_input=example, input=[list(part.shape) for part in example]
        )
    settings = {
        "INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1,
        "PERFORMANCE_HINT": "LATENCY",
    }  # fmt: skip
    request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()

    def run(latents: Tensor, condition: Tensor) -> Tensor:
        found = request.infer([part.numpy() for part in served.given(latents, condition)])
        return torch.from_numpy(found[0].copy())  # the next batch is written to the same place

    version = openvino.__version__.split("-")[0]
    synthesizer.run_by(f"openvino-{version}-cpu-fp32", run)


class _Images(nn.Module):
    """The network alone; what it is given is its only input."""

    def __init__(self, served: ServedGenerator) -> None:
        super().__init__()
        self.served = served

    def forward(self, *given: Tensor) -> Tensor:
        """(CHUNK, 1, S, S) in (-1, 1)."""
        return self.served.images(*given)
