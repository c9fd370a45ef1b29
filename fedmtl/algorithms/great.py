"""A discriminator guesses from a gradient at the representation whose task it is; each task scales its own to confuse it.

Sinha, Chen, Badrinarayanan, Rabinovich. Gradient Adversarial Training of Neural Networks. 2018. arXiv:1806.08028

Sends: phi (the trunk), the discriminator's gradient, how often it was right. Keeps: the head and the gradient-alignment layer.
Server: weighted mean of phi, and a step of the discriminator down the weighted mean of its gradients.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from pydantic import PositiveInt
from torch import Tensor
from torch.nn import functional as F

from fedmtl import keys
from fedmtl.algorithms.base import Algorithm, Replies, Update
from fedmtl.algorithms.several import key_of
from fedmtl.algorithms.steps import Batch, Client, Signature
from fedmtl.errors import ScenarioError
from fedmtl.optimizers import Adam
from fedmtl.registry import Amount, Count
from fedmtl.trees import Params, Tree, pick

NET, D = ("hidden", "task"), "discriminator/"


@dataclass(frozen=True, kw_only=True)
class Great(Algorithm):
    """GREAT for many tasks, a client each: gradient-alignment layers a_i = e^(s_i) on the representation, 1 at first.

    Backward, the loss's gradient by z goes through a_i into the trunk, at the root mean square (rms) that it had. Once a round, of
    a_i g / rms(a_i g) on all train rows: the discriminator, a hidden layer of `width` and a softmax over clients, makes one step of
    Adam (`discriminator-lr`) down its cross-entropy; after `warm-rounds`, s_i goes `strength` times up. strength 0 is FedPer. Ours:
    e^s, which turns no gradient round; rms, so that no size tells; a step a round, as one client's rows are all of one class.
    """

    shared: ClassVar[str] = "trunk"
    statistics: ClassVar[tuple[str, ...]] = (*NET, "right")
    departs: ClassVar[Mapping[str, str]] = dict.fromkeys(("copies", "alike"), "the discriminator learns to tell clients apart")

    strength: Amount = 0.3
    discriminator_lr: Amount = 0.003
    width: PositiveInt = 64
    warm_rounds: Count = 0

    def unites(self, signatures: Sequence[Signature]) -> None:
        """Raises ScenarioError where one discriminator cannot read the gradients of all."""
        if len(widths := {signature.features for signature in signatures}) > 1:
            raise ScenarioError("algorithm.name", f"'great' needs representations of one width, not of {sorted(widths)}")

    def init(self, model: Params, wire: frozenset[str], clients: int) -> Params:
        """phi, and a discriminator keyed by the initial model. The last axis of a head's first parameter is what it reads."""
        draw, like = keys.torch_generator(keys.fold(key_of(model), 2)), next(v for k, v in model.items() if k.startswith("head."))
        shapes = {"hidden": (self.width, like.shape[-1]), "task": (clients, self.width)}
        state = {D + name: (torch.randn(s, generator=draw) * (2 / s[1]) ** 0.5).to(like.dtype) for name, s in shapes.items()}
        state |= {f"server/{slot}/{name}": torch.zeros_like(leaf) for slot in "mv" for name, leaf in state.items()}
        return pick(model, wire) | state | {"server/step": like.new_zeros(()), "server/right": like.new_tensor(1 / clients)}

    def start(self, client: Client, model: Params) -> Tree:
        """The head, and s = 0."""
        return {**super().start(client, model), "align": model[min(model)].new_zeros(client.size, client.signature.features)}

    def local(self, client: Client, received: Params, kept: Mapping[str, Any]) -> Update:
        """The adversaries' gradients, then SGD with the loss's gradient aligned on its way into the trunk."""
        w = pick({**kept, **received}, client.signature.layout.names)
        rows = list(self._gradients(client, w))
        right, up, down = self._play(client, rows, kept["align"], {name: received[D + name] for name in NET})
        s = kept["align"] + self.strength * up if client.round > self.warm_rounds else kept["align"]
        scale = s.exp().unsqueeze(1)
        scale = scale * (_rms(rows) / _rms([(scale * g, weight) for g, weight in rows]))

        def aligned(w: Params, batch: Batch) -> Tensor:
            z = client.features(w, batch)
            return client.loss_of(client.head(w, z.detach() + scale * (z - z.detach()), batch), batch, w)

        phi, head = client.share(client.sgd(aligned, w), self.shared)
        return {**phi, **{D + name: leaf for name, leaf in down.items()}, "right": right}, {**head, "align": s}

    def _gradients(self, client: Client, w: Params) -> Iterator[tuple[Tensor, Tensor]]:
        """(g [C, B, features], weight [C, B]) of all train rows: the gradient of each one's loss by z, and 0 without a label."""
        for batch in client.scan():
            with torch.no_grad():
                z = client.features(w, batch, training=False)
            losses, weight = client.row_losses(client.signature.forward.top(w, z.requires_grad_()), batch)
            yield torch.autograd.grad(losses.sum(), z)[0], weight

    def _play(self, client: Client, g_w: Sequence[tuple[Tensor, Tensor]], s: Tensor, net: Params) -> tuple[Tensor, Tensor, Params]:
        """(how often the client is recognised [C], d CE / d s, d CE / d net) at a g / rms(a g)."""
        s, net = s.detach().requires_grad_(), {name: leaf.detach().requires_grad_() for name, leaf in net.items()}
        me = torch.from_numpy(client.ids).to(s.device).reshape(-1, 1, 1)
        rows = [(s.exp().unsqueeze(1) * g, weight) for g, weight in g_w]
        rms, loss, right = _rms(rows), torch.zeros_like(s[:, 0]), torch.zeros_like(s[:, 0])
        for g, weight in rows:
            says = (g / rms @ net["hidden"].mT).relu() @ net["task"].mT
            own = F.log_softmax(says, 2).gather(2, me.expand(-1, says.shape[1], 1)).squeeze(2)
            loss, right = loss - (own * weight).sum(1), right + ((says.argmax(2) == me[:, 0]) * weight).sum(1)
        up, *down = torch.autograd.grad(loss.sum(), [s, *net.values()])
        return right, up, dict(zip(net, down, strict=True))

    def server(self, state: Params, replies: Replies) -> Params:
        """The mean of phi, and Adam on the discriminator."""
        mean, step, now = replies.mean(), state["server/step"] + 1, {name: state[name][None].clone() for name in state}
        net, m, v = ({name: now[at + D + name] for name in NET} for at in ("", "server/m/", "server/v/"))
        Adam(lr=self.discriminator_lr).step(net, {name: mean.pop(D + name)[None] for name in NET}, {"m": m, "v": v}, int(step))
        return {name: leaf[0] for name, leaf in now.items()} | {"server/right": mean.pop("right"), "server/step": step, **mean}

    def figures(self, state: Params) -> dict[str, float]:
        """How often the discriminator recognised a gradient at the start of the round, and how often it would by chance."""
        return {"discriminator/accuracy": float(state["server/right"]), "discriminator/chance": 1 / len(state[D + "task"])}


def _rms(rows: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """[C, 1, 1] the root mean square over rows and features; above 0, also where all are 0."""
    return torch.stack([(g.square().mean(2) * w).sum(1) for g, w in rows]).sum(0).clamp(min=1e-36).sqrt().reshape(-1, 1, 1)
