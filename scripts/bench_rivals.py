"""The engines that fedmtl is timed against: a plain torch loop, two processes of it, a stacked floor, Flower's own simulation."""

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
    """MLP 64-64-10, or the CNN of McMahan et al. with padding ("same") or without ("valid")."""
    if model == "mlp":
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    padding, side = (2, 7) if model == "same" else (0, 4)
    return nn.Sequential(nn.Conv2d(1, 32, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Conv2d(32, 64, 5, padding=padding), nn.ReLU(), nn.MaxPool2d(2),
                         nn.Flatten(), nn.Linear(64 * side**2, 512), nn.ReLU(), nn.Linear(512, 10))


def first_net(model: str) -> nn.Module:
    """The same, with the weights that every arm begins with."""
    torch.manual_seed(0)
    return make_net(model)


def model_of(scenario: Any) -> str:
    """The name under which `make_net` makes the scenario's model."""
    return str(getattr(scenario.trunk, "padding", "mlp"))


def parts_of(federation: Any) -> tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]]:
    """(train, val and test) tensors of every client."""
    out: tuple[list[tuple[Tensor, Tensor]], list[tuple[Tensor, Tensor]]] = ([], [])
    for client in range(federation.clients):
        held = np.concatenate([federation.part(client, "val"), federation.part(client, "test")])
        for where, rows in zip(out, (federation.part(client, "train"), held), strict=True):
            where.append((torch.from_numpy(federation.x[rows]), torch.from_numpy(federation.y[rows])))
    return out


def train_one(net: nn.Module, x: Tensor, y: Tensor, lr: float, batch: int, near: list[Tensor] | None = None,
              lam: float = 0.0) -> None:
    """One epoch, as everyone writes it; with `near`, pulled there by lam."""
    optimizer = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=lr)
    for rows in torch.randperm(len(x)).split(batch):
        optimizer.zero_grad()
        loss = F.cross_entropy(net(x[rows]), y[rows])
        if near is not None:
            loss = loss + lam / 2 * sum(((p - q) ** 2).sum() for p, q in zip(net.parameters(), near, strict=True))
        loss.backward()
        optimizer.step()


State = dict[str, Tensor]


class Loop:
    """One module, loaded with the weights of one client after the other: FedAvg, FedRep or Ditto as everyone writes them."""

    def __init__(self, scenario: Any, federation: Any, half: int | None = None) -> None:
        self.train, self.held = (part[half::2] if half is not None else part for part in parts_of(federation))
        self.net, self.method = first_net(model_of(scenario)), scenario.method
        self.lr, self.batch = scenario.optimizer.lr, scenario.training.batch_size
        self.client = {"fedavg": self.fedavg, "fedrep": self.fedrep, "ditto": self.ditto}[scenario.algorithm.name]
        self.state = {k: v.clone() for k, v in self.net.state_dict().items()}
        self.own: list[State] = [self.state] * len(self.train)

    def copy(self) -> State:
        """The module's weights now."""
        return {k: v.clone() for k, v in self.net.state_dict().items()}

    def fedavg(self, i: int) -> State:
        """One epoch from the global weights."""
        self.net.load_state_dict(self.state)
        train_one(self.net, *self.train[i], self.lr, self.batch)
        return self.net.state_dict()

    def fedrep(self, i: int) -> State:
        """The last layer for many epochs with the rest frozen, then the rest with the last layer frozen."""
        last = list(self.state)[-2:]
        self.net.load_state_dict({**self.state, **{k: self.own[i][k] for k in last}})
        for epochs, head in ((self.method.head_epochs, True), (self.method.trunk_epochs, False)):
            for name, p in self.net.named_parameters():
                p.requires_grad_((name in last) == head)
            for _ in range(epochs):
                train_one(self.net, *self.train[i], self.lr, self.batch)
        self.own[i] = self.copy()
        return self.own[i]

    def ditto(self, i: int) -> State:
        """The personal model with its proximal term, then the global one."""
        self.net.load_state_dict(self.own[i])
        train_one(self.net, *self.train[i], self.lr, self.batch, near=list(self.state.values()), lam=self.method.lam)
        self.own[i] = self.copy()
        return self.fedavg(i)

    def sums(self) -> State:
        """The weighted sum over the clients, after they have trained."""
        out = {k: torch.zeros_like(v) for k, v in self.state.items()}
        for i, (x, _) in enumerate(self.train):
            for k, v in self.client(i).items():
                out[k].add_(v, alpha=len(x))
        return out

    def score(self, state: State) -> list[float]:
        """Every client's accuracy, with the model that its method would use."""
        self.state, found, personal = state, [], self.client != self.fedavg
        last = list(state)[-2:]
        with torch.no_grad():
            for i, (x, y) in enumerate(self.held):
                if personal or not i:
                    mine = self.own[i] if self.client == self.ditto else {**state, **{k: self.own[i][k] for k in last}}
                    self.net.load_state_dict(mine if personal else state)
                found.append((self.net(x).argmax(1) == y).float().mean().item())
        return found

    def round(self, number: int) -> float:
        """Train all, average, score all."""
        total = sum(len(x) for x, _ in self.train)
        return float(np.mean(self.score({k: v / total for k, v in self.sums().items()})))


def _half(pipe: Any, scenario: Any, federation: Any, half: int) -> None:
    torch.set_num_threads(1)
    loop = Loop(scenario, federation, half)
    pipe.send(sum(len(x) for x, _ in loop.train))
    while True:
        kind, state = pipe.recv()
        if kind == "train":
            loop.state = state
        pipe.send(loop.sums() if kind == "train" else loop.score(state))


class Pair:
    """Two processes, each with the plain loop over half of the clients."""

    def __init__(self, scenario: Any, federation: Any) -> None:
        context = torch.multiprocessing.get_context("spawn")
        self.pipes, self.state = [], first_net(model_of(scenario)).state_dict()
        for half in range(2):
            here, there = context.Pipe()
            context.Process(target=_half, args=(there, scenario, federation, half), daemon=True).start()
            there.close()  # so that a half that died is an error here, not a wait
            self.pipes.append(here)
        self.total = sum(pipe.recv() for pipe in self.pipes)

    def ask(self, kind: str) -> list[Any]:
        """The answers of both."""
        for pipe in self.pipes:
            pipe.send((kind, self.state))
        return [pipe.recv() for pipe in self.pipes]

    def round(self, number: int) -> float:
        """Train all, average, score all."""
        first, second = self.ask("train")
        self.state = {k: (v + second[k]) / self.total for k, v in first.items()}
        return float(np.mean([score for half in self.ask("score") for score in half]))


class Floor:
    """All clients as one stacked MLP: batches drawn beforehand, gradients by autograd, nothing recorded."""

    def __init__(self, scenario: Any, federation: Any) -> None:
        if scenario.model.trunk != "mlp":
            raise SystemExit("the floor is written for the MLP; leave it out with --arms")
        train, held = parts_of(federation)
        self.lr, self.batch = scenario.optimizer.lr, scenario.training.batch_size
        self.weight = torch.tensor([float(len(x)) for x, _ in train])
        self.params = [p.detach().clone() for p in first_net("mlp").parameters()]
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

    model, lr, batch = model_of(scenario), scenario.optimizer.lr, scenario.training.batch_size
    path = str(Path(tempfile.mkdtemp()) / "data.pt")
    torch.save([{"x": x, "y": y, "hx": hx, "hy": hy} for (x, y), (hx, hy) in zip(*parts_of(federation), strict=True)], path)
    os.environ["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    begin, marks, scores = time.perf_counter(), [], []
    client_app, server_app = ClientApp(), ServerApp()

    from bench_rivals import make_net, stored, train_one  # by name, so that they are not pickled with every message

    def load(message: Message) -> nn.Module:
        torch.set_num_threads(1)
        net = make_net(model)
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
            grid=grid, initial_arrays=ArrayRecord(first_net(model).state_dict()), num_rounds=rounds)

    run_simulation(server_app=server_app, client_app=client_app, num_supernodes=federation.clients,
                   backend_config={"client_resources": {"num_cpus": 1, "num_gpus": 0.0},
                                   "init_args": {"address": "local", "num_cpus": workers}})
    gaps = [b - a for a, b in pairwise(marks)]
    return {"rounds": gaps, "startup": marks[0] - begin, "score": scores[-1]}
