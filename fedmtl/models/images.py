"""Layers on the images of one client, [1, B, channels, height, width]: on a CPU a stack of convolutions does not pay."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.models.layers import Layer
from fedmtl.trees import Params, Slope


def last(leaf: Tensor) -> Tensor:
    """Images, or kernels, with their channels last in memory. Of one channel it is the strides of the kernels that tell."""
    return leaf if leaf.stride(1) == 1 else leaf.clone(memory_format=torch.channels_last)


class Conv2d(Layer):
    """A convolution of one client's images, [1, B, channels, height, width]."""

    def __init__(self, prefix: str, module: nn.Conv2d) -> None:
        self.module, self.weight, self.bias = module, f"{prefix}.weight", f"{prefix}.bias" if module.bias is not None else ""
        self.params = (self.weight, self.bias) if self.bias else (self.weight,)

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return self._of(x.squeeze(0), last(params[self.weight].squeeze(0)), params)

    def _of(self, x: Tensor, weight: Tensor, params: Params) -> Tensor:
        bias, m = params[self.bias].squeeze(0) if self.bias else None, self.module
        return F.conv2d(x, weight, bias, m.stride, m.padding, m.dilation, m.groups).unsqueeze(0)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        saved = x.squeeze(0), last(params[self.weight].squeeze(0))
        return self._of(*saved, params), saved

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        (x, weight), m = saved, self.module
        needs = [below, wanted[0], len(wanted) > 1 and wanted[1]]
        down, *found = torch.ops.aten.convolution_backward(grad.squeeze(0), x, weight, [len(weight)], m.stride, m.padding,
                                                           m.dilation, False, [0, 0], m.groups, needs)
        return down.unsqueeze(0) if below else None, [
            leaf.unsqueeze(0) if want else None for leaf, want in zip(found, wanted, strict=False)]


class GreyConv2d(Conv2d):
    """The same of one channel with kernels that move pixel by pixel, by matrix products: on a CPU faster for small batches."""

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        if x.device.type != "cpu":
            return super().forward(params, x)
        m, images, weight = self.module, x.squeeze(0), params[self.weight].squeeze(0)
        (height, width), (above, left) = m.kernel_size, (int(size) for size in m.padding)
        shown = F.pad(images.squeeze(1), (left, left, above, above)) if above or left else images.squeeze(1)
        places = shown.unfold(1, height, 1).unfold(2, width, 1)
        pixels = places.permute(3, 4, 0, 1, 2).reshape(height * width, -1)  # by place in the kernel: all that it lies on
        kernels = weight.reshape(m.out_channels, -1).t()
        out = torch.addmm(params[self.bias].squeeze(0), pixels.t(), kernels) if self.bias else torch.mm(pixels.t(), kernels)
        return out.view(1, *places.shape[:3], -1).permute(0, 1, 4, 2, 3), (images, weight, pixels)

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        images, weight, *pixels = saved
        if below or not pixels:
            return super().backward((images, last(weight)), grad, wanted, below)
        slope = grad.squeeze(0).permute(0, 2, 3, 1).reshape(-1, len(weight))
        found: list[Slope | None] = [torch.mm(pixels[0], slope).t().reshape(1, *weight.shape) if wanted[0] else None]
        return None, [*found, slope.sum(0).unsqueeze(0) if wanted[1] else None] if self.bias else found


class MaxPool2d(Layer):
    """Pooling of one client's images."""

    def __init__(self, module: nn.MaxPool2d) -> None:
        self.module = module
        sizes = (module.kernel_size, module.stride, module.padding, module.dilation)
        self.how = [[size] * 2 if isinstance(size, int) else list(size) for size in sizes]

    def plain(self, params: Params, x: Tensor) -> Tensor:
        out: Tensor = self.module(x.squeeze(0))
        return out.unsqueeze(0)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        x = x.squeeze(0)
        out, places = torch.ops.aten.max_pool2d_with_indices(x, *self.how, self.module.ceil_mode)
        return out.unsqueeze(0), (x, places)

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        if not below:
            return None, []
        (x, places), grad, last = saved, grad.squeeze(0), torch.channels_last
        grad = grad.contiguous(memory_format=last) if x.is_contiguous(memory_format=last) else grad
        down = torch.ops.aten.max_pool2d_with_indices_backward(grad, x, *self.how, self.module.ceil_mode, places)
        return down.unsqueeze(0), []
