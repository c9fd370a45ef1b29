"""Where private state lives between rounds: in the process that made it, or in a directory of its own, never on the wire."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fedmtl.errors import DiskError
from fedmtl.trees import Params


class Store(Protocol):
    """The private state of some clients; leaves are stacked in the order of the ids asked for."""

    def load(self, clients: Sequence[int]) -> tuple[Params, list[bool]]:
        """(leaves [K, ...] of the K clients that have state, which of `clients` these are)."""

    def branch(self, group: str) -> Store:
        """The store of one group's clients, whose state has a shape of its own and whose ids start at 0 again."""

    def save(self, clients: Sequence[int], state: Params, round: int) -> None:
        """Replaces the state of `clients` by the leaves [len(clients), ...] that they have after `round`."""


class MemoryStore:
    """In memory: one tensor a leaf for all clients, grown as clients first appear."""

    def branch(self, group: str) -> Store:
        """See Store."""
        return MemoryStore()

    def __init__(self) -> None:
        self._leaves: Params = {}
        self._row: OrderedDict[int, int] = OrderedDict()
        self._free: list[int] = []

    def load(self, clients: Sequence[int]) -> tuple[Params, list[bool]]:
        """See Store."""
        known = [client in self._row for client in clients]
        if not any(known):
            return {}, known
        rows = torch.tensor([self._row[client] for client in clients if client in self._row], dtype=torch.int64)
        return {name: leaf.index_select(0, rows.to(leaf.device)) for name, leaf in self._leaves.items()}, known

    def save(self, clients: Sequence[int], state: Params, round: int) -> None:
        """See Store."""
        if not state:
            return
        for client in clients:
            if client not in self._row:
                self._row[client] = self._free.pop() if self._free else len(self._row)
        rows = torch.tensor([self._row[client] for client in clients], dtype=torch.int64)
        for name, leaf in state.items():
            self._room(name, leaf).index_copy_(0, rows.to(leaf.device), leaf.detach())

    def _room(self, name: str, leaf: Tensor) -> Tensor:
        old, needed = self._leaves.get(name), len(self._row) + len(self._free)
        if old is None or len(old) < needed:
            grown = torch.zeros((max(16, 2 * needed), *leaf.shape[1:]), dtype=leaf.dtype, device=leaf.device)
            if old is not None:
                grown[: len(old)] = old
            self._leaves[name] = grown
        return self._leaves[name]


def digest(params: Params) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of parameters, in the order of their names."""
    out = hashlib.sha256()
    for name in sorted(params):
        array = params[name].detach().cpu().contiguous().numpy()
        out.update(f"{name} {array.dtype} {list(array.shape)}\n".encode())
        out.update(array.tobytes())
    return out.hexdigest()


class DirectoryStore:
    """One safetensors file a client in a directory: for processes that end between rounds."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def branch(self, group: str) -> Store:
        """See Store."""
        return DirectoryStore(self.directory / group)

    def _path(self, client: int) -> Path:
        return self.directory / f"client-{client:06d}.safetensors"

    def load(self, clients: Sequence[int]) -> tuple[Params, list[bool]]:
        """See Store. Raises DiskError where a file cannot be read."""
        known = [self._path(client).exists() for client in clients]
        found = [self._read(client) for client, there in zip(clients, known, strict=True) if there]
        if not found:
            return {}, known
        return {name: torch.stack([one[name] for one in found]) for name in found[0]}, known

    def _read(self, client: int) -> Params:
        path = self._path(client)
        try:
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
                written = (file.metadata() or {}).get("sha256")
        except (OSError, SafetensorError) as error:
            raise DiskError(f"{path}: the private state of client {client} cannot be read: {error}") from error
        if written != digest(state):
            raise DiskError(f"{path}: the private state of client {client} is damaged: its SHA-256 is not the one written")
        return state

    def save(self, clients: Sequence[int], state: Params, round: int) -> None:
        """See Store. A file is replaced in one step, so a reader never sees half of one."""
        if not state:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        for slot, client in enumerate(clients):
            path = self._path(client)
            draft = path.with_suffix(f".{os.getpid()}.tmp")
            own = {name: leaf[slot].contiguous() for name, leaf in state.items()}
            save_file(own, draft, metadata={"sha256": digest(own)})
            draft.replace(path)
