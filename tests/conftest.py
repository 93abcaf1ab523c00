from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Iterator

import pytest
from toy import toy_dataset

from fastgan_aug.data.dataset import Dataset
from fastgan_aug.data.phantom.population import PhantomConfig, make_phantom

SMALL_COUNTS = {
    "CER/normal": 5, "CER/unilateral": 3,
    "BG/normal": 4, "BG/unilateral": 4, "BG/bilateral": 3,
    "COR/normal": 3, "COR/unilateral": 4, "COR/bilateral": 3,
}  # fmt: skip


STATUS = pytest.StashKey[int]()


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    session.config.stash[STATUS] = int(exitstatus)


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """Ends here, with the status of the tests, before Ray's libraries are unloaded.

    Where a process started Ray more than once, as tests do and no command does, the exporter of
    Ray 2.60's metrics outlives `ray.shutdown`: every 10 s it logs that the agent is gone. It did so
    once while the log was being closed, and the process crashed when all had been told.
    """
    if STATUS in config.stash and "ray" in sys.modules:
        atexit._run_exitfuncs()
        config.get_terminal_writer().flush()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(config.stash[STATUS])


@pytest.fixture(autouse=True, scope="session")
def own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test touches the user's pseudonym key."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", str(tmp_path_factory.mktemp("config")))
        yield


@pytest.fixture(scope="session")
def toy(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return toy_dataset(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="session")
def small_config() -> PhantomConfig:
    return PhantomConfig(seed=3, counts=SMALL_COUNTS, patients=9)


@pytest.fixture(scope="session")
def small_phantom(small_config: PhantomConfig) -> Dataset:
    return make_phantom(small_config)
