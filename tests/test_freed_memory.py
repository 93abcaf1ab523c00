from __future__ import annotations

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
import torch.nn.functional as F
from fastgan_aug.gan.freed_memory import keep_freed_memory
torch.set_num_threads(1)
if {keep}:
    keep_freed_memory()
def layers(times):
    for _ in range(times):
        x = torch.ones(16, 16, 8, 8)
        for _ in range(3):
            x = F.relu(F.conv_transpose2d(x, torch.ones(16, 16, 4, 4), stride=2, padding=1))
layers(5)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
layers(20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="of glibc alone")
def test_a_layers_memory_is_not_fetched_anew_for_each_batch() -> None:
    kept, given_back = (
        int(subprocess.check_output([sys.executable, "-c", FAULTS.format(keep=keep)]))
        for keep in (True, False)
    )
    assert given_back > 10_000  # else there is nothing to keep, and the module can go
    assert kept < given_back / 20
