"""The common layers for a whole cohort: inputs [C, B, ...] and parameters [C, ...], each with a backward pass of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.models.base import Beside, Net, Only
from fedmtl.models.dropout import Dropout
from fedmtl.trees import Outer, Params, Slope

POINTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Identity)


BLOCK = 64
"""Numbers; a multiple of what any processor's vector unit takes at once."""


class Layer(ABC):
    """A layer of a cohort. params: the names of its parameters that may be trained."""

    params: tuple[str, ...] = ()

    @abstractmethod
    def plain(self, params: Params, x: Tensor) -> Tensor:
        """The outputs, under autograd where that is on."""

    def only(self, params: Params, x: Tensor) -> Tensor:
        """The outputs, outside autograd and with no way back."""
        return self.plain(params, x)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        """(the outputs, what `backward` needs), outside autograd."""
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            own = {name: params[name].detach().requires_grad_() for name in self.params}
            out = self.plain({**params, **own}, x)
        return out.detach(), (out, x, list(own.values()))

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        """(the gradient by the inputs where `below` asks for it, those by the parameters that are `wanted`)."""
        out, x, own = saved
        asked = [leaf for leaf, want in zip(own, wanted, strict=True) if want] + [x] * below
        found = list(torch.autograd.grad(out, asked, grad, retain_graph=True)) if asked else []
        down = found.pop() if below else None
        return down, [found.pop(0) if want else None for want in wanted]


class Linear(Layer):
    """x W^T + b. A weight is fastest whose memory is that of W^T."""

    def __init__(self, prefix: str, bias: bool) -> None:
        self.weight, self.bias = f"{prefix}.weight", f"{prefix}.bias" if bias else ""
        self.params = (self.weight, self.bias) if bias else (self.weight,)

    def plain(self, params: Params, x: Tensor) -> Tensor:
        weight = params[self.weight]
        if weight.shape[0] == 1 and x.dim() == 3:  # of one client W x^T reads a large weight row by row, about twice as fast
            out = torch.mm(weight[0], x[0].t()).t().unsqueeze(0)
            return out + params[self.bias].unsqueeze(1) if self.bias else out
        turned = weight.transpose(1, 2)
        return torch.baddbmm(params[self.bias].unsqueeze(1), x, turned) if self.bias else torch.bmm(x, turned)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        return self.plain(params, x), (x, params[self.weight])

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        x, weight = saved
        found: list[Slope | None] = [Outer(grad, x) if wanted[0] else None]
        if self.bias:
            found.append(grad.sum(1) if wanted[1] else None)
        return torch.bmm(grad, weight) if below else None, found


class _Linears(Layer):
    """Several linear layers on the same inputs, as one whose rows of weights are theirs, one after the other."""

    def __init__(self, layers: Sequence[Linear]) -> None:
        self.layers = layers
        self.params = tuple(name for layer in layers for name in layer.params)

    def _joined(self, params: Params) -> tuple[Tensor, Tensor]:
        weights = [params[layer.weight] for layer in self.layers]
        biases = [params[layer.bias] if layer.bias else weight.new_zeros(weight.shape[:2])
                  for layer, weight in zip(self.layers, weights, strict=True)]
        return torch.cat(weights, dim=1), torch.cat(biases, dim=1)

    def plain(self, params: Params, x: Tensor) -> Tensor:
        weight, bias = self._joined(params)
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2))

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        weight, bias = self._joined(params)
        widths = [params[layer.weight].shape[1] for layer in self.layers]
        return torch.baddbmm(bias.unsqueeze(1), x, weight.transpose(1, 2)), (x, weight, widths)

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        x, weight, widths = saved
        found: list[Slope | None] = []
        for layer, own, shift in zip(self.layers, torch.split(grad, widths, 2), torch.split(grad.sum(1), widths, 1), strict=True):
            found += [Outer(own, x), shift] if layer.bias else [Outer(own, x)]
        return torch.bmm(grad, weight) if below else None, [
            leaf if want else None for leaf, want in zip(found, wanted, strict=True)]


class _Beside(Layer):
    """Stacks of layers on the same inputs; their outputs stand beside each other."""

    def __init__(self, stacks: Sequence[Sequence[Layer]]) -> None:
        self.stacks = stacks
        self.params = tuple(name for stack in stacks for layer in stack for name in layer.params)

    def plain(self, params: Params, x: Tensor) -> Tensor:
        outs = []
        for stack in self.stacks:
            out = x
            for layer in stack:
                out = layer.plain(params, out)
            outs.append(out)
        return torch.cat(outs, dim=-1)


class _Relu(Layer):
    """own: nobody else looks at the inputs, so that `forward` may write the outputs in their place."""

    own = False

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return x.relu()

    def only(self, params: Params, x: Tensor) -> Tensor:
        return x.relu_() if self.own else x.relu()

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        out = self.only(params, x)
        return out, out

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        return torch.ops.aten.threshold_backward(grad, saved, 0) if below else None, []


def last(leaf: Tensor) -> Tensor:
    """Images, or kernels, with their channels last in memory. Of one channel it is the strides of the kernels that tell."""
    return leaf if leaf.stride(1) == 1 else leaf.clone(memory_format=torch.channels_last)


class _Conv2d(Layer):
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


class _MaxPool2d(Layer):
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


class _Flatten(Layer):
    def plain(self, params: Params, x: Tensor) -> Tensor:
        return x.flatten(2)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        return x.flatten(2), x.shape

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        return grad.reshape(saved) if below else None, []


class _LayerNorm(Layer):
    def __init__(self, prefix: str, module: nn.LayerNorm) -> None:
        self.module, self.weight, self.bias = module, f"{prefix}.weight", f"{prefix}.bias"
        self.params = tuple(f"{prefix}.{name}" for name, _ in module.named_parameters())

    def plain(self, params: Params, x: Tensor) -> Tensor:
        out = F.layer_norm(x, self.module.normalized_shape, eps=self.module.eps)
        if self.weight in self.params:
            out = out * params[self.weight].unsqueeze(1)
        return out + params[self.bias].unsqueeze(1) if self.bias in self.params else out


class _Applied(Layer):
    """A function without parameters."""

    def __init__(self, function: Callable[[Params, Tensor], Tensor]) -> None:
        self.function = function

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return self.function(params, x)


def _dropout(prefix: str, module: Dropout) -> Layer:
    key = f"{prefix}.key"
    return _Applied(lambda params, x: module.apply_keyed(x, params[key]) if key in params else x)


def layers_of(module: nn.Module, prefix: str, *, alone: bool = False) -> list[Layer] | None:
    """The module as layers, or None where it holds one that has no such form here. alone: for one client, so images do."""
    if isinstance(module, Beside):
        return _beside([layers_of(child, f"{prefix}.{name}", alone=alone) for name, child in module.named_children()])
    if isinstance(module, nn.Sequential | Net | Only):
        return _stack(module, prefix, alone) if _in_order(module) else None
    return None if module._forward_hooks or module._forward_pre_hooks else _layer(module, prefix, alone)


def _stack(module: nn.Module, prefix: str, alone: bool) -> list[Layer] | None:
    """The layers of modules that run one after the other."""
    nested = [layers_of(child, f"{prefix}.{name}".lstrip("."), alone=alone) for name, child in module._modules.items()
              if child is not None]
    stack = [layer for layers in nested if layers is not None for layer in layers]
    for i, two in enumerate(pairwise(stack)):
        if isinstance(two[0], _Relu) and isinstance(two[1], _MaxPool2d):  # the largest is the same, and there are fewer numbers
            stack[i : i + 2] = reversed(two)
    for before, layer in pairwise(stack):
        if isinstance(layer, _Relu) and isinstance(before, Linear | _Conv2d | _MaxPool2d):
            layer.own = True
    return None if None in nested else stack


def _layer(module: nn.Module, prefix: str, alone: bool) -> list[Layer] | None:
    """One module as a layer."""
    if type(module) is nn.Linear:
        return [Linear(prefix, module.bias is not None)]
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return [_LayerNorm(prefix, module)]
    if isinstance(module, Dropout):
        return [_dropout(prefix, module)]
    if type(module) is nn.ReLU:
        return [_Relu()]
    if alone and type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        return [_Conv2d(prefix, module)]
    if alone and type(module) is nn.MaxPool2d and not module.return_indices:
        return [_MaxPool2d(module)]
    if type(module) in POINTWISE:
        return [_Applied(lambda _, x: _in_blocks(module, x))]
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return [_Flatten()]
    return None


def _in_order(module: nn.Module) -> bool:
    """Whether a container does no more than to run its children one after the other, none of whose parameters are used twice."""
    runs = not isinstance(module, nn.Sequential) or type(module).forward is nn.Sequential.forward
    runs = runs and not (module._forward_hooks or module._forward_pre_hooks)
    trained = [child for child in module._modules.values() if child is not None and next(child.parameters(), None) is not None]
    return runs and len({id(child) for child in trained}) == len(trained)


def _in_blocks(module: nn.Module, x: Tensor) -> Tensor:
    """A function of every number, on each client's filled up to whole blocks: the rest of a block is computed in another way,
    and it must not depend on the cohort which numbers are in it.
    """
    rows = x.flatten(1)
    out: Tensor = module(F.pad(rows, (0, -rows.shape[1] % BLOCK)))
    return out[:, : rows.shape[1]].reshape(x.shape)


def _beside(stacks: Sequence[list[Layer] | None]) -> list[Layer] | None:
    known = [stack for stack in stacks if stack is not None]
    if len(known) < len(stacks):
        return None
    linear = [layer for stack in known for layer in stack if len(stack) == 1 and isinstance(layer, Linear)]
    return [_Linears(linear) if len(linear) == len(known) else _Beside(known)]
