"""The engines that fedmtl is timed against: a plain torch loop, a hand-written stacked floor, Flower's own simulation."""

from __future__ import annotations

import logging
import os
import tempfile
import time
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F


def make_net(model: str) -> nn.Module:
    """MLP 64-64-10, or the CNN of McMahan et al."""
    torch.manual_seed(0)
    if model == "mlp":
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    return nn.Sequential(nn.Conv2d(1, 32, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(),
                         nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64 * 49, 512), nn.ReLU(), nn.Linear(512, 10))


def parts_of(federation: Any) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """(train, val and test) tensors of every client."""
    out: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]] = ([], [])
    for client in range(federation.clients):
        held = np.concatenate([federation.part(client, "val"), federation.part(client, "test")])
        for where, rows in zip(out, (federation.part(client, "train"), held), strict=True):
            where.append((torch.from_numpy(federation.x[rows]), torch.from_numpy(federation.y[rows])))
    return out


def train_one(net: nn.Module, x: Tensor, y: Tensor, lr: float, batch: int) -> None:
    """One epoch, as everyone writes it."""
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    for rows in torch.randperm(len(x)).split(batch):
        optimizer.zero_grad()
        F.cross_entropy(net(x[rows]), y[rows]).backward()
        optimizer.step()


class Loop:
    """One module, loaded with the global weights for one client after the other."""

    def __init__(self, scenario: Any, federation: Any) -> None:
        self.train, self.held = parts_of(federation)
        self.net = make_net(scenario.model.trunk)
        self.lr, self.batch = scenario.optimizer.lr, scenario.training.batch_size
        self.state = {k: v.clone() for k, v in self.net.state_dict().items()}

    def round(self, number: int) -> float:
        """Train all, average, score all."""
        total = sum(len(x) for x, _ in self.train)
        mean = {k: torch.zeros_like(v) for k, v in self.state.items()}
        for x, y in self.train:
            self.net.load_state_dict(self.state)
            train_one(self.net, x, y, self.lr, self.batch)
            for k, v in self.net.state_dict().items():
                mean[k].add_(v, alpha=len(x) / total)
        self.state = mean
        self.net.load_state_dict(mean)
        with torch.no_grad():
            return float(np.mean([(self.net(x).argmax(1) == y).float().mean().item() for x, y in self.held]))


class Floor:
    """All clients as one stacked MLP: batches drawn beforehand, gradients by autograd, nothing recorded."""

    def __init__(self, scenario: Any, federation: Any) -> None:
        if scenario.model.trunk != "mlp":
            raise SystemExit("the floor is written for the MLP; leave it out with --arms")
        train, held = parts_of(federation)
        self.lr, self.batch = scenario.optimizer.lr, scenario.training.batch_size
        self.weight = torch.tensor([float(len(x)) for x, _ in train])
        self.params = [p.detach().clone() for p in make_net("mlp").parameters()]
        (self.x, self.y, self.mask), (self.hx, self.hy, self.hmask) = (self._pad(part) for part in (train, held))

    def _pad(self, part: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
        width = -(-max(len(x) for x, _ in part) // self.batch) * self.batch
        x, mask = torch.zeros(len(part), width, 64), torch.zeros(len(part), width)
        y = torch.zeros(len(part), width, dtype=torch.int64)
        for i, (a, b) in enumerate(part):
            x[i, : len(a)], y[i, : len(a)], mask[i, : len(a)] = a, b, 1
        return x, y, mask

    def forward(self, params: list[Tensor], x: Tensor) -> Tensor:
        """[C, B, 64] to [C, B, 10]."""
        w1, b1, w2, b2 = params
        h = torch.baddbmm(b1.unsqueeze(1), x, w1.transpose(1, 2)).relu()
        return torch.baddbmm(b2.unsqueeze(1), h, w2.transpose(1, 2))

    def round(self, number: int) -> float:
        """Train all, average, score all."""
        count = len(self.x)
        params = [p.expand(count, *p.shape).clone() for p in self.params]
        for start in range(0, self.x.shape[1], self.batch):
            here = slice(start, start + self.batch)
            leaves = [p.requires_grad_() for p in params]
            loss = F.cross_entropy(self.forward(leaves, self.x[:, here]).flatten(0, 1), self.y[:, here].flatten(), reduction="none")
            weight = self.mask[:, here] / self.mask[:, here].sum(1, keepdim=True).clamp(min=1)
            grads = torch.autograd.grad((loss.view(count, -1) * weight).sum(), leaves)
            params = [(p - self.lr * g).detach() for p, g in zip(leaves, grads, strict=True)]
        share = self.weight / self.weight.sum()
        self.params = [torch.tensordot(share, p, 1) for p in params]
        with torch.no_grad():
            hits = (self.forward([p.expand(count, *p.shape) for p in self.params], self.hx).argmax(2) == self.hy).float()
        return float(((hits * self.hmask).sum(1) / self.hmask.sum(1)).mean())


@cache
def stored(path: str) -> list[dict[str, Tensor]]:
    """train and held-out tensors of every client, read once a process, as a well-written client would."""
    loaded: list[dict[str, Tensor]] = torch.load(path, weights_only=True)
    return loaded


def flower_rounds(scenario: Any, federation: Any, rounds: int, workers: int) -> dict[str, Any]:
    """Flower's engine: FedAvg, an ordinary ClientApp, one CPU a client."""
    os.environ["FLWR_TELEMETRY_ENABLED"] = "0"
    logging.disable(logging.WARNING)
    from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    trunk, lr, batch = scenario.model.trunk, scenario.optimizer.lr, scenario.training.batch_size
    path = str(Path(tempfile.mkdtemp()) / "data.pt")
    torch.save([{"x": x, "y": y, "hx": hx, "hy": hy} for (x, y), (hx, hy) in zip(*parts_of(federation), strict=True)], path)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    begin, marks, scores = time.perf_counter(), [], []
    client_app, server_app = ClientApp(), ServerApp()

    from bench_rivals import make_net, stored, train_one  # by name, so that they are not pickled with every message

    def load(message: Message) -> nn.Module:
        torch.set_num_threads(1)
        net = make_net(trunk)
        net.load_state_dict(message.content["arrays"].to_torch_state_dict())
        return net

    @client_app.train()
    def fit(message: Message, context: Context) -> Message:
        net, own = load(message), stored(path)[int(context.node_config["partition-id"])]
        x, y = own["x"], own["y"]
        train_one(net, x, y, lr, batch)
        return Message(RecordDict({"arrays": ArrayRecord(net.state_dict()), "metrics": MetricRecord({"num-examples": len(x)})}),
                       reply_to=message)

    @client_app.evaluate()
    def score(message: Message, context: Context) -> Message:
        net, own = load(message), stored(path)[int(context.node_config["partition-id"])]
        x, y = own["hx"], own["hy"]
        with torch.no_grad():
            hits = (net(x).argmax(1) == y).float().mean().item()
        return Message(RecordDict({"metrics": MetricRecord({"num-examples": len(x), "accuracy": hits})}), reply_to=message)

    class Timed(FedAvg):
        def aggregate_evaluate(self, server_round: int, replies: Any) -> Any:
            out = super().aggregate_evaluate(server_round, replies)
            marks.append(time.perf_counter())
            scores.append(float(out["accuracy"]))
            return out

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        Timed(fraction_train=1.0, fraction_evaluate=1.0, min_available_nodes=federation.clients).start(
            grid=grid, initial_arrays=ArrayRecord(make_net(trunk).state_dict()), num_rounds=rounds)

    run_simulation(server_app=server_app, client_app=client_app, num_supernodes=federation.clients,
                   backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0}, "init_args": {"num_cpus": workers}})
    gaps = [b - a for a, b in pairwise(marks)]
    return {"rounds": gaps, "startup": marks[0] - begin, "score": scores[-1]}
