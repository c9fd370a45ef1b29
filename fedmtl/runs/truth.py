"""How near a run came to what is known of its data."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmtl.trees import Params


def subspace_sine(state: Params, truth: npt.NDArray[np.float64]) -> float | None:
    """The sine of the largest principal angle between the true subspace [d, k] and the trunk's first layer [k, d].

    None where no first layer of that shape was shared. FedRep (Collins et al., ICML 2021), definition 1.
    """
    from scipy.linalg import subspace_angles

    weights = [leaf.detach().double().cpu().numpy() for name, leaf in sorted(state.items())
               if name.startswith("trunk.") and name.endswith("weight")]
    if len(weights) != 1 or weights[0].shape != truth.T.shape:
        return None
    return float(np.sin(subspace_angles(weights[0].T, truth).max()))


def truth_scores(state: Params, truth: Mapping[str, npt.NDArray[np.float64]]) -> dict[str, float]:
    """Every score that can be computed from the shared parameters and the data's truth."""
    sine = subspace_sine(state, truth["subspace"]) if "subspace" in truth else None
    return {} if sine is None else {"subspace_sine": sine}
