"""Flower's own aggregation rules as a reference: the same replies through its strategy and through a method's server half."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmtl.server.messages import empty_run, request
from fedmtl.server.reduce import ShardSums
from fedmtl.server.replies import Accepted, Gathered
from fedmtl.trees import Params

SHAPES = {"trunk.a": (4, 3), "trunk.b": (4,), "head.c": (2, 4)}


def draws(clients: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Params:
    """Frozen replies, [clients, ...]; one client in five lies far off."""
    draw = np.random.default_rng(seed)
    far = np.where(np.arange(clients) % 5 == 4, 8.0, 1.0)
    return {name: torch.from_numpy((far * draw.normal(size=(*shape, clients))).T.copy().reshape(clients, *shape)).to(dtype)
            for name, shape in SHAPES.items()}


def accepted(rows: Params, weights: Sequence[float], number: int = 1, registered: int | None = None) -> Accepted:
    """Replies as a server half sees them."""
    clients, total = list(range(len(weights))), len(weights) if registered is None else registered
    sizes = np.ones(total, np.int64)
    return Accepted(number, clients, ShardSums([0]), Gathered([(clients, rows)]), np.zeros(total, np.int64),
                    np.zeros(total, np.int64), sizes, lambda some: np.asarray(weights, np.float64)[some],
                    lambda name, some: some, lambda name: rows[name].dtype)


def flower(strategy: FedAvg, state: Params, rows: Params, weights: Sequence[float], number: int = 1) -> Params:
    """What one of Flower's strategies makes of the same replies: rows hold whole models, `state` what they started from."""
    empty_run()
    strategy.current_arrays = {name: leaf.numpy() for name, leaf in state.items()} if hasattr(strategy, "tau") else ArrayRecord(
        {name: Array(leaf.numpy()) for name, leaf in state.items()})
    replies = [Message(RecordDict({"arrays": ArrayRecord({name: Array(leaf[k].numpy()) for name, leaf in rows.items()}),
                                   "metrics": MetricRecord({"num-examples": float(weight)}), "config": ConfigRecord()}),
                       reply_to=request("train", k + 1, {})) for k, weight in enumerate(weights)]
    arrays, _ = strategy.aggregate_train(number, replies)
    assert arrays is not None
    return {name: torch.from_numpy(array.numpy()) for name, array in arrays.items()}
