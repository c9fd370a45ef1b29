"""The backward passes of convolutions and poolings on one client's images are autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from fedmtl.models.layered import layers_of

CONVOLUTIONS = [nn.Conv2d(channels, 4, kernel, stride=stride, padding=padding, dilation=dilation, bias=bias)
                for channels in (1, 2) for kernel, stride, padding, dilation, bias in (
                    (3, 1, 0, 1, True), (3, 1, 1, 1, False), ((3, 2), 1, (2, 1), 1, True), (3, 2, 1, 1, True), (2, 1, 0, 2, True))]
POOLINGS = [nn.MaxPool2d(2), nn.MaxPool2d(3, stride=2, padding=1), nn.MaxPool2d(2, ceil_mode=True)]


@pytest.mark.parametrize("below", [False, True])
@pytest.mark.parametrize("module", CONVOLUTIONS + POOLINGS, ids=str)
def test_backward_is_that_of_autograd(module, below):
    module, random = module.double(), torch.Generator().manual_seed(1)
    (layer,) = layers_of(module, "conv", alone=True)
    x = torch.randn(5, getattr(module, "in_channels", 2), 9, 8, dtype=torch.float64, generator=random).requires_grad_()
    out = module(x)
    grad = torch.randn(out.shape, dtype=torch.float64, generator=random)
    params = {f"conv.{name}": leaf.detach().unsqueeze(0) for name, leaf in module.named_parameters()}
    with torch.no_grad():
        found, saved = layer.forward(params, x.unsqueeze(0))
    down, own = layer.backward(saved, grad.unsqueeze(0), [True] * len(layer.params), below)
    assert torch.allclose(found.squeeze(0), out, rtol=0, atol=1e-12)
    wanted = torch.autograd.grad(out, [x, *module.parameters()], grad)
    assert (down is not None) == below
    if below:
        assert torch.allclose(down.squeeze(0), wanted[0], rtol=0, atol=1e-12)
    for leaf, other in zip(own, wanted[1:], strict=True):
        assert torch.allclose(leaf.squeeze(0), other, rtol=0, atol=1e-12)


@pytest.mark.parametrize("module", CONVOLUTIONS, ids=str)
def test_only_what_is_wanted_is_made(module):
    (layer,) = layers_of(module, "conv", alone=True)
    params = {f"conv.{name}": leaf.detach().unsqueeze(0) for name, leaf in module.named_parameters()}
    x = torch.zeros(1, 2, module.in_channels, 9, 8, dtype=module.weight.dtype)
    with torch.no_grad():
        out, saved = layer.forward(params, x)
    for place in range(len(layer.params)):
        wanted = [i == place for i in range(len(layer.params))]
        _, own = layer.backward(saved, torch.ones_like(out), wanted, False)
        assert [leaf is not None for leaf in own] == wanted
