"""How many clients train as one stacked model: settled by the model and the device alone, never by a clock."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from fedmtl import trees
from fedmtl.errors import ScenarioError
from fedmtl.models.stacked import Forward
from fedmtl.scenario import Scenario
from fedmtl.trees import Params


def width_of(scenario: Scenario, forward: Forward, model: Params, row: Tensor) -> int:
    """Clients in a cohort. row: one input, on the device. Raises ScenarioError where the model cannot be stacked as asked."""
    asked = scenario.runtime.cohort
    statistics = [n for n, b in forward.net.named_buffers() if b.is_floating_point()]
    if statistics and asked not in ("auto", 1):
        raise ScenarioError("runtime.cohort", f"batch statistics ({statistics[0]}) cannot be stacked; use 1, or group or "
                            f"layer normalisation (got {asked})")
    if asked != "auto":
        return asked
    on_cpu = row.device.type == "cpu"
    if statistics or (on_cpu and forward.path == "vmap" and not _vmap_pays(forward, model, row)):
        return 1
    parameters = sum(leaf.numel() for leaf in model.values())
    return int(np.clip(2**20 // max(parameters, 1), 1, 64)) if on_cpu else 256


def _vmap_pays(forward: Forward, model: Params, row: Tensor) -> bool:
    """On a CPU a stacked convolution is a grouped one, slower than one client after the other; and some modules cannot."""
    if any(isinstance(module, nn.modules.conv._ConvNd) for module in forward.net.modules()):
        return False
    try:
        forward(trees.expand(model, 2), torch.zeros_like(row).expand(2, 1, *row.shape))
    except RuntimeError:
        return False
    return True
