"""Pictures, turned and blurred."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from fedmtl.errors import ScenarioError
from fedmtl.keys import stream, uniform
from fedmtl.registry import Amount
from fedmtl.tasks.task import Array, Samples, Transform
from fedmtl.tasks.transforms.common import need_pictures, pictures, turn


def rotated(x: Array, degrees: float, kind: str) -> Array:
    """Pictures x turned about their centre, counter-clockwise, in the same shape.

    Quarter turns of square pictures move pixels; other angles interpolate, and what comes from outside is 0.
    """
    shown = pictures(x, kind)
    quarters, square = degrees / 90, shown.shape[-1] == shown.shape[-2]
    if square and quarters == round(quarters):
        turned = np.rot90(shown, round(quarters) % 4, axes=(-2, -1))
    elif not len(x):
        turned = shown
    else:
        from scipy.ndimage import rotate

        turned = rotate(shown, degrees, axes=(-1, -2), reshape=False, order=1)
    return np.ascontiguousarray(turned).reshape(x.shape)


@dataclass(frozen=True, kw_only=True)
class Rotation(Transform):
    """Every client holds its pictures at an angle of its own: the same labels, other inputs.

    Ghosh, Chung, Yin, Ramchandran. An Efficient Framework for Clustered Federated Learning. NeurIPS 2020.
    arXiv:2006.04088, section 6.2 (rotated MNIST)

    degrees: the angles. by: "client", which takes them in turn, or "key", which draws one of them. x: [N, H, W],
    [N, channels, H, W] or, as the bundled digits are, [N, H * H]. truth: "degrees" [clients].
    """

    degrees: Annotated[tuple[Annotated[float, Field(allow_inf_nan=False)], ...], Field(min_length=1)] = (0.0, 90.0, 180.0, 270.0)
    by: Literal["client", "key"] = "client"

    def angle(self, client: int, seed: int) -> float:
        """The angle of one client."""
        drawn = int(uniform(stream(seed, "tasks.rotation", 0, client), 1)[0] * len(self.degrees))
        return turn(self.degrees, client if self.by == "client" else drawn)

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """x turned."""
        return replace(samples, x=rotated(samples.x, self.angle(client, seed), "rotation"))

    def check(self, samples: Samples) -> None:
        """Only pictures can be turned, and quarter turns keep the shape of square ones alone."""
        shape = need_pictures(samples, "rotation").shape
        if shape[-1] != shape[-2] and any(angle % 180 == 90 for angle in self.degrees):
            problem = f"a quarter turn of pictures of {shape[-2]} x {shape[-1]} loses their ends"
            raise ScenarioError("tasks.transform.degrees", f"{problem}; 0 and 180 do not")

    def truth(self, clients: int, seed: int) -> Mapping[str, Array]:
        """The angles."""
        return {"degrees": np.array([self.angle(client, seed) for client in range(clients)], dtype=np.float64)}


@dataclass(frozen=True, kw_only=True)
class Blur(Transform):
    """Pictures out of focus: a Gaussian filter, as strong as the client's own lens.

    sigma: its width in pixels. vary: each client has a width drawn evenly between 0 and sigma. x as for 'rotation'.
    """

    sigma: Amount = 1.0
    vary: bool = False

    def apply(self, samples: Samples, client: int, seed: int) -> Samples:
        """x blurred along both sides of each picture."""
        from scipy.ndimage import gaussian_filter

        sigma = self.sigma * (uniform(stream(seed, "tasks.blur", 0, client), 1)[0] if self.vary else 1)
        if sigma == 0 or not len(samples):
            return samples
        shown = pictures(samples.x, "blur")
        return replace(samples, x=gaussian_filter(shown, (0, 0, sigma, sigma), mode="nearest").reshape(samples.x.shape))

    def check(self, samples: Samples) -> None:
        """Only pictures can be blurred."""
        need_pictures(samples, "blur")
