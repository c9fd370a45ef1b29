"""The common layers for a whole cohort: inputs [C, B, ...] and parameters [C, ...], each with a backward pass of its own."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.trees import Outer, Params, Slope


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


class Linears(Layer):
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


class Stacks(Layer):
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


class Relu(Layer):
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


class Flatten(Layer):
    """Of every row one vector."""

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return x.flatten(2)

    def forward(self, params: Params, x: Tensor) -> tuple[Tensor, Any]:
        return x.flatten(2), x.shape

    def backward(self, saved: Any, grad: Tensor, wanted: Sequence[bool], below: bool) -> tuple[Tensor | None, list[Slope | None]]:
        return grad.reshape(saved) if below else None, []


class LayerNorm(Layer):
    """Layer normalisation over the last axis."""

    def __init__(self, prefix: str, module: nn.LayerNorm) -> None:
        self.module, self.weight, self.bias = module, f"{prefix}.weight", f"{prefix}.bias"
        self.params = tuple(f"{prefix}.{name}" for name, _ in module.named_parameters())

    def plain(self, params: Params, x: Tensor) -> Tensor:
        out = F.layer_norm(x, self.module.normalized_shape, eps=self.module.eps)
        if self.weight in self.params:
            out = out * params[self.weight].unsqueeze(1)
        return out + params[self.bias].unsqueeze(1) if self.bias in self.params else out


class Applied(Layer):
    """A function without parameters."""

    def __init__(self, function: Callable[[Params, Tensor], Tensor]) -> None:
        self.function = function

    def plain(self, params: Params, x: Tensor) -> Tensor:
        return self.function(params, x)
