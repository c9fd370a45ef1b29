"""What all tests need: one torch thread; and what those on Ray need."""

from __future__ import annotations

import gc
import os
import warnings
from contextlib import contextmanager

import pytest
import torch

torch.set_num_threads(1)


@contextmanager
def swept():
    """Ray leaves its processes' handles and log files to the garbage collector, which complains of them whenever it comes by."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
        gc.collect()


@pytest.fixture
def leftovers():
    """For a test that starts Ray itself."""
    yield
    with swept():
        pass


@pytest.fixture(scope="module")
def session():
    """Ray with room for four workers, for the tests of one file; every grid finds it running, and leaves it running."""
    import ray

    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    with swept():
        ray.init("local", include_dashboard=False, log_to_driver=False, num_cpus=4, logging_level="ERROR")
    yield ray
    with swept():
        ray.shutdown()
