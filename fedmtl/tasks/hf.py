"""Hugging Face's `datasets` and Flower's `flwr_datasets`, imported late (they cost seconds) and kept quiet."""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, the two libraries show no progress bars and no warnings.

    Flower's telemetry stays off unless FLWR_TELEMETRY_ENABLED asks for it.
    """
    os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import datasets
        from huggingface_hub.utils import logging as hub_logging

        bars, level = datasets.is_progress_bar_enabled(), hub_logging.get_verbosity()
        datasets.disable_progress_bars()
        hub_logging.set_verbosity(logging.ERROR)
        try:
            yield
        finally:
            hub_logging.set_verbosity(level)
            if bars:
                datasets.enable_progress_bars()
