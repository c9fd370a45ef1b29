"""A module as the common layers that it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional as F

from fedmtl.models.base import Beside, Net, Only
from fedmtl.models.dropout import Dropout
from fedmtl.models.images import Conv2d, GreyConv2d, MaxPool2d
from fedmtl.models.layers import Applied, Flatten, Layer, LayerNorm, Linear, Linears, Relu, Stacks
from fedmtl.models.tokens import MeanEmbedding, MeanEmbeddings

POINTWISE = (nn.ReLU, nn.Tanh, nn.GELU, nn.Sigmoid, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Identity)
BLOCK = 64
"""Numbers; a multiple of what any processor's vector unit takes at once."""


def _dropout(prefix: str, module: Dropout) -> Layer:
    key = f"{prefix}.key"
    return Applied(lambda params, x: module.apply_keyed(x, params[key]) if key in params else x)


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
        if isinstance(two[0], Relu) and isinstance(two[1], MaxPool2d):  # the largest is the same, and there are fewer numbers
            stack[i : i + 2] = reversed(two)
    for before, layer in pairwise(stack):
        if isinstance(layer, Relu) and isinstance(before, Linear | Conv2d | MaxPool2d):
            layer.own = True
    return None if None in nested else stack


def _layer(module: nn.Module, prefix: str, alone: bool) -> list[Layer] | None:
    """One module as a layer."""
    if type(module) is nn.Linear:
        return [Linear(prefix, module.bias is not None)]
    if type(module) is MeanEmbedding:
        return [MeanEmbeddings(prefix)]
    if type(module) is nn.LayerNorm and len(module.normalized_shape) == 1:
        return [LayerNorm(prefix, module)]
    if isinstance(module, Dropout):
        return [_dropout(prefix, module)]
    if type(module) is nn.ReLU:
        return [Relu()]
    if alone and type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str):
        grey = module.in_channels == 1 and module.stride == (1, 1) == module.dilation
        return [GreyConv2d(prefix, module) if grey else Conv2d(prefix, module)]
    if alone and type(module) is nn.MaxPool2d and not module.return_indices:
        return [MaxPool2d(module)]
    if type(module) in POINTWISE:
        return [Applied(lambda _, x: _in_blocks(module, x))]
    if type(module) is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
        return [Flatten()]
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
    return [Linears(linear) if len(linear) == len(known) else Stacks(known)]
