"""The phantom on real Ray workers."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import PhantomConfig, write_phantom
from fastgan_aug.engines.ray_cluster import ray_cluster
from fastgan_aug.engines.tasks import map_on_ray
from fastgan_aug.errors import DataError

pytestmark = pytest.mark.integration


def test_ray_workers_draw_the_same_bytes_and_tell_their_errors(
    small_config: PhantomConfig, tmp_path: Path
):
    with ray_cluster():
        write_phantom(small_config, tmp_path / "ray", partial(map_on_ray, workers=2))
        with pytest.raises(DataError, match="cannot be read"):
            list(map_on_ray(Dataset.read, [tmp_path / "nothing"], workers=1))
    write_phantom(small_config, tmp_path / "here")
    assert (tmp_path / "ray").read_bytes() == (tmp_path / "here").read_bytes()
