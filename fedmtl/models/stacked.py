"""The forward pass of a whole cohort: parameters [C, ...] and inputs [C, B, ...] to outputs [C, B, ...].

One client alone learns through its module as it is, where its gradient is autograd's. Several run as batched matrix products
where every layer is a common one (the whole stack is then one node of autograd, with a backward pass of its own), else under
torch.func.vmap. All are under ordinary autograd: the gradient of the sum of the clients' losses is, slice by slice, every
client's own gradient.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from fedmtl.models.dropout import Dropout
from fedmtl.models.images import last
from fedmtl.models.layered import layers_of
from fedmtl.models.layers import Layer, Linear
from fedmtl.trees import Params, Slope, dense

BEYOND = -1e9
"""What an output says that is not one of a client's own: finite, and no share of any softmax."""


Step = tuple[Layer, Any, list[bool], bool]
"""A layer that was passed, what it saved, which of its parameters are trained, and whether one below it is."""


def climb(layers: Sequence[Layer], params: Params, x: Tensor, moving: Collection[str], needed: bool) -> tuple[Tensor, list[Step]]:
    """(the outputs, the steps back) of layers whose parameters `moving` are trained; needed: the gradient by x is wanted, too."""
    steps: list[Step] = []
    for layer in layers:
        wanted = [name in moving for name in layer.params]
        if needed or any(wanted):
            x, saved = layer.forward(params, x)
            steps.append((layer, saved, wanted, needed))
        else:
            x = layer.only(params, x)
        needed = needed or any(wanted)
    return x, steps


def descend(steps: Sequence[Step], grad: Tensor) -> tuple[Tensor | None, dict[str, Slope]]:
    """(the gradient by x, those by the parameters) from that by the outputs."""
    found: dict[str, Slope] = {}
    down: Tensor | None = grad
    for layer, saved, wanted, below in reversed(steps):
        assert down is not None
        down, own = layer.backward(saved, down, wanted, below)
        found |= {name: leaf for name, leaf in zip(layer.params, own, strict=True) if leaf is not None}
    return down, found


class _Chain(torch.autograd.Function):
    """The layers as one function of x and of the parameters that are trained; `names` are those of `leaves`."""

    @staticmethod
    def forward(ctx: Any, layers: list[Layer], rest: Params, names: tuple[str, ...], x: Tensor, *leaves: Tensor) -> Tensor:
        params = {**rest, **dict(zip(names, leaves, strict=True))}
        ctx.layers, ctx.rest, ctx.names = layers, rest, names
        moving = {name for name, needs in zip(names, ctx.needs_input_grad[4:], strict=True) if needs}
        out, ctx.steps = climb(layers, params, x, moving, ctx.needs_input_grad[3])
        ctx.save_for_backward(x, *leaves)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        if torch.is_grad_enabled():  # someone differentiates twice: through the plain layers
            return _Chain._twice(ctx, grads[0])
        grad, found = descend(ctx.steps, grads[0])
        return None, None, None, grad, *(dense(found[name]) if name in found else None for name in ctx.names)

    @staticmethod
    def _twice(ctx: Any, grad: Tensor) -> Any:
        x, *leaves = ctx.saved_tensors
        params, out = {**ctx.rest, **dict(zip(ctx.names, leaves, strict=True))}, x
        for layer in ctx.layers:
            out = layer.plain(params, out)
        inputs = [x, *leaves]
        asked = [leaf for leaf, needs in zip(inputs, ctx.needs_input_grad[3:], strict=True) if needs]
        found = iter(torch.autograd.grad(out, asked, grad, create_graph=True))
        return None, None, None, *(next(found) if needs else None for needs in ctx.needs_input_grad[3:])


_chained: Callable[..., Tensor] = _Chain.apply


class Forward:
    """Runs a module for a cohort; `path` says how: "stacked", "vmap", and for one client "loop"."""

    def __init__(self, net: nn.Module, beyond: Tensor | None = None) -> None:
        self.net, self.beyond = net, beyond
        self.layers = layers_of(net, "")
        self.alone = layers_of(net, "", alone=True)
        """The same for one client, also where it convolves."""
        self.path = "stacked" if self.layers is not None else "vmap"
        self.convolves = any(isinstance(module, nn.Conv2d) for module in net.modules())
        """Then images lie in memory channels last, which is the faster order for convolutions on a CPU."""
        self.dropouts = tuple(f"{name}.key" for name, module in net.named_modules() if isinstance(module, Dropout))
        self.names = frozenset({**dict(net.named_parameters()), **dict(net.named_buffers())}) | set(self.dropouts)
        self.turned = frozenset(layer.weight for layer in self.layers or () if isinstance(layer, Linear))

    def within(self, counts: Tensor, outputs: int) -> Forward:
        """The same for a cohort whose clients have label spaces of counts [C] classes: outputs beyond these say BEYOND.

        So they are in no softmax, are never what is predicted, and have no gradient.
        """
        return Forward(self.net, (torch.arange(outputs, device=counts.device) >= counts.unsqueeze(1)).unsqueeze(1))

    def working(self, params: Params) -> Params:
        """A copy of parameters to train on, with the order of memory that is fastest; shapes and values are the same."""
        return {name: self._copy(name.rsplit("/", 1)[-1], leaf) for name, leaf in params.items()}

    def _copy(self, name: str, leaf: Tensor) -> Tensor:
        if len(leaf) > 1 and name in self.turned:
            return leaf.transpose(1, 2).clone(memory_format=torch.contiguous_format).transpose(1, 2)
        if len(leaf) == 1 and leaf.dim() == 5:
            return leaf[0].clone(memory_format=torch.channels_last).unsqueeze(0)
        return leaf.clone(memory_format=torch.contiguous_format)

    @cached_property
    def body(self) -> Forward:
        """All but the head: from x to the representation [C, B, features]."""
        return Forward(nn.Sequential(OrderedDict(list(self.net.named_children())[:-1])))

    @cached_property
    def top(self) -> Forward:
        """The head: from the representation to the outputs."""
        return Forward(nn.Sequential(OrderedDict(list(self.net.named_children())[-1:])), self.beyond)

    def __call__(self, params: Params, x: Tensor, *, training: bool = False) -> Tensor:
        """Outputs [C, B, ...]. In training, batch normalisation (C = 1 only) updates its statistics in `params`.

        Leaves that the module does not have are left aside.
        """
        out = self._run(params, x, training)
        return out if self.beyond is None else out.masked_fill(self.beyond, BEYOND)

    def climb(self, params: Params, x: Tensor, moving: Collection[str]) -> tuple[Tensor, list[Step]] | None:
        """The outputs [C, B, ...] and the steps back for `descend`, without autograd; None where the layers are no such stack."""
        layers = self._layers(x.shape[0])
        if layers is None or self.beyond is not None:
            return None
        return climb(layers, params, _last(x) if self.convolves else x, moving, False)

    def _layers(self, clients: int) -> list[Layer] | None:
        return self.alone if clients == 1 else self.layers

    def _run(self, params: Params, x: Tensor, training: bool) -> Tensor:
        params = {name: leaf for name, leaf in params.items() if name in self.names}
        x = _last(x) if self.convolves else x
        layers, names = self._layers(x.shape[0]), tuple(name for name, leaf in params.items() if leaf.requires_grad)
        learning = torch.is_grad_enabled() and (names or x.requires_grad)
        if layers is None or (learning and len(x) == 1):
            self.net.train(training)
            out: Tensor = vmap(self._call)(params, x) if len(x) > 1 else self._call(*self._one(params, x)).unsqueeze(0)
            return out
        if learning:
            rest = {name: leaf for name, leaf in params.items() if not leaf.requires_grad}
            return _chained(layers, rest, names, x, *(params[name] for name in names))
        for layer in layers:
            x = layer.only(params, x)
        return x

    def _one(self, params: Params, x: Tensor) -> tuple[Params, Tensor]:
        """The only client's, without a client axis."""
        alone = {name: leaf.squeeze(0) for name, leaf in params.items()}
        if self.convolves:
            alone = {name: last(leaf) if leaf.dim() == 4 else leaf for name, leaf in alone.items()}
        return alone, x.squeeze(0)

    def _call(self, params: Params, rows: Tensor) -> Tensor:
        """The module itself, for one client."""
        out: Tensor = functional_call(self.net, params, (rows,))
        return out


def _last(x: Tensor) -> Tensor:
    """One client's images [1, B, channels, height, width], channels last in memory."""
    return last(x.squeeze(0)).unsqueeze(0) if x.dim() == 5 and x.shape[0] == 1 else x
