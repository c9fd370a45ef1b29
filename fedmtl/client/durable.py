"""Private state that outlives the process that made it: in memory for clients that are alive, in two files for all.

Each client has a place in either file and writes to them in turn, so that its last two versions are there whatever happens in
the middle of a write. A process that takes over reads what stood before the round that has to be done again.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from fedmtl.client.store import MemoryStore
from fedmtl.errors import DiskError
from fedmtl.trees import Params

Bytes = npt.NDArray[np.uint8]
HEAD = np.dtype([("client", "<i8"), ("round", "<i8"), ("crc", "<u8")])
RESIDENT = 2**28
"""Bytes of private state that one process keeps in memory; clients that rest longest leave first."""


class DurableStore(MemoryStore):
    """See client.store.Store. path: the files' common stem; before: open what stood before this round, for doing it again.

    Raises DiskError where a file cannot be read or written, or holds bytes that were not written so.
    """

    def __init__(self, path: Path, *, before: int | None = None, resident: int = RESIDENT) -> None:
        super().__init__()
        self.path, self.before, self.resident = path, before, resident
        self._place: dict[int, int] = {}
        self._version: dict[int, tuple[int, int]] = {}
        """Client to (which file, round) of its newest state."""
        self._spec: list[tuple[str, str, list[int]]] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT
            self._files = [os.open(f"{path}.{turn}", flags, 0o600) for turn in "ab"]
            if before is not None and self._layout.exists():
                self._spec = json.loads(self._layout.read_text(encoding="utf-8"))
                self._scan(before)
        except OSError as error:
            raise DiskError(f"{path}: private state cannot be kept there: {error.strerror}") from error

    def branch(self, group: str) -> DurableStore:
        """See Store."""
        return DurableStore(self.path.with_name(f"{self.path.name}-{group}"), before=self.before, resident=self.resident)

    @property
    def _layout(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def _size(self) -> int:
        return HEAD.itemsize + sum(np.dtype(kind).itemsize * int(np.prod(shape)) for _, kind, shape in self._spec)

    def load(self, clients: Sequence[int]) -> tuple[Params, list[bool]]:
        """See Store; clients that rested are read back."""
        resting = [client for client in clients if client not in self._row and client in self._version]
        if resting:
            super().save(resting, self._unpack(np.stack([self._read(client) for client in resting])), 0)
        for client in clients:
            if client in self._row:
                self._row.move_to_end(client)
        found = super().load(clients)
        self._rest()
        return found

    def save(self, clients: Sequence[int], state: Params, round: int) -> None:
        """See Store; the state is on disk, in the operating system's hands, when this returns."""
        if not state:
            return
        super().save(clients, state, round)
        if not self._spec:
            self._spec = [(name, str(leaf.dtype).removeprefix("torch."), list(leaf.shape[1:])) for name, leaf in state.items()]
            self._layout.write_text(json.dumps(self._spec), encoding="utf-8")
        for client in clients:
            self._place.setdefault(client, len(self._place))
        turn = np.array([1 - self._version[c][0] if c in self._version else 0 for c in clients])
        place = np.array([self._place[c] for c in clients])
        records = self._pack(clients, state, round)
        try:
            for which in (0, 1):
                mine = np.flatnonzero(turn == which)
                mine = mine[np.argsort(place[mine])]
                for run in np.split(mine, np.flatnonzero(np.diff(place[mine]) != 1) + 1) if len(mine) else []:
                    os.pwrite(self._files[which], records[run].tobytes(), int(place[run[0]]) * self._size)
        except OSError as error:
            raise DiskError(f"{self.path}: private state cannot be written: {error.strerror}") from error
        self._version |= {c: (int(t), round) for c, t in zip(clients, turn, strict=True)}
        self._rest()

    def _pack(self, clients: Sequence[int], state: Params, round: int) -> Bytes:
        rows = [np.ascontiguousarray(state[name].detach().cpu().numpy()).reshape(len(clients), -1).view(np.uint8)
                for name, _, _ in self._spec]
        body = np.concatenate(rows, axis=1)
        head = np.zeros(len(clients), HEAD)
        head["client"], head["round"] = clients, round
        head["crc"] = [zlib.crc32(row.tobytes()) for row in body]
        return np.concatenate([head.view(np.uint8).reshape(len(clients), -1), body], axis=1)

    def _unpack(self, records: Bytes) -> Params:
        out, start = {}, HEAD.itemsize
        for name, kind, shape in self._spec:
            width = np.dtype(kind).itemsize * int(np.prod(shape))
            part = np.ascontiguousarray(records[:, start : start + width])
            out[name] = torch.from_numpy(part.view(np.dtype(kind)).reshape(len(records), *shape))
            start += width
        return out

    def _read(self, client: int) -> Bytes:
        file, offset = self._files[self._version[client][0]], self._place[client] * self._size
        record = np.frombuffer(os.pread(file, self._size, offset), np.uint8)
        head: Any = record[: HEAD.itemsize].view(HEAD)[0] if len(record) == self._size else None
        if head is None or head["client"] != client or zlib.crc32(record[HEAD.itemsize :].tobytes()) != head["crc"]:
            raise DiskError(f"{self.path}: the private state of client {client} is damaged")
        return record

    def _scan(self, before: int) -> None:
        """Finds every client's newest state of a round before `before`."""
        for turn, file in enumerate(self._files):
            for place in range(os.fstat(file).st_size // self._size):
                raw = os.pread(file, HEAD.itemsize, place * self._size)
                head: Any = np.frombuffer(raw, HEAD)[0]
                client, round = int(head["client"]), int(head["round"])
                if head["crc"] or round:
                    self._place[client] = place
                    if round < before and round > self._version.get(client, (0, -1))[1]:
                        self._version[client] = (turn, round)

    def _rest(self) -> None:
        """Lets clients go from memory that were not asked for longest, as long as too much is held."""
        size = max(self._size - HEAD.itemsize, 1)
        while len(self._row) * size > self.resident and len(self._row) > 1:
            self._free.append(self._row.popitem(last=False)[1])
