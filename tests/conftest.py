"""What all tests need: Flower, whose old typer warns about a new click when it is imported, and one torch thread."""

from __future__ import annotations

import warnings

import torch

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import flwr.app  # noqa: F401

torch.set_num_threads(1)
