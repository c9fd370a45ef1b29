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
HEAD = np.dtype([("client", "<i8"), ("round", "<i8"), ("crc", "<u8"), ("seal", "<u8")])
"""crc is of the record's body, seal of the other three; records start at multiples of 32 bytes, so no page's end cuts a head."""
RESIDENT = 2**28
"""Bytes of private state that one process keeps in memory; clients that rest longest leave first."""


class DurableStore(MemoryStore):
    """See client.store.Store. path: the files' common stem; before: open what stood before this round, for doing it again;
    without it a store starts empty.

    Raises DiskError where a file cannot be read or written, or holds bytes that were not written so.
    """

    def __init__(self, path: Path, *, before: int | None = None, resident: int = RESIDENT) -> None:
        super().__init__()
        self.path, self.before, self.resident = path, before, resident
        self._place: dict[int, int] = {}
        self._version: dict[int, tuple[int, int]] = {}
        """Client to (which file, round) of its newest state."""
        self._spec: list[tuple[str, str, list[int]]] = []
        self._files: list[int] = []
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            flags = os.O_RDWR | os.O_CREAT | (os.O_TRUNC if before is None else 0)
            for turn in "ab":
                self._files.append(os.open(f"{path}.{turn}", flags, 0o600))
            if before is None:
                self._layout.unlink(missing_ok=True)
            elif self._layout.exists():
                self._spec = json.loads(self._layout.read_text(encoding="utf-8"))
                self._scan(before)
        except OSError as error:
            raise DiskError(f"{path}: private state cannot be kept there: {error.strerror}") from error
        except ValueError as error:
            raise DiskError(f"{self._layout} is damaged: {error}") from error

    def __del__(self) -> None:
        """Closes the files."""
        for file in self._files:
            os.close(file)

    def branch(self, group: str) -> DurableStore:
        """See Store."""
        return DurableStore(self.path.with_name(f"{self.path.name}-{group}"), before=self.before, resident=self.resident)

    @property
    def _layout(self) -> Path:
        return self.path.with_suffix(".json")

    @property
    def _size(self) -> int:
        """Bytes of a record."""
        return HEAD.itemsize + -(-self._body // HEAD.itemsize) * HEAD.itemsize

    @property
    def _body(self) -> int:
        return sum(np.dtype(kind).itemsize * int(np.prod(shape)) for _, kind, shape in self._spec)

    def load(self, clients: Sequence[int]) -> tuple[Params, list[bool]]:
        """See Store; clients that rested are read back."""
        resting = [client for client in clients if client not in self._row and client in self._version]
        if resting:
            super().save(resting, self._beside(self._unpack(np.stack([self._read(client) for client in resting]))), 0)
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
        super().save(clients, self._beside(state), round)
        if not self._spec:
            self._describe(state)
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
                    _write(self._files[which], records[run].tobytes(), int(place[run[0]]) * self._size)
        except OSError as error:
            raise DiskError(f"{self.path}: private state cannot be written: {error.strerror}") from error
        self._version |= {c: (int(t), round) for c, t in zip(clients, turn, strict=True)}
        self._rest()

    def _beside(self, state: Params) -> Params:
        """`state` on the device of what is in memory already."""
        return {name: leaf.to(self._leaves[name].device) if name in self._leaves else leaf for name, leaf in state.items()}

    def _describe(self, state: Params) -> None:
        """Settles what a record holds, and writes it down in one step."""
        self._spec = [(name, str(leaf.dtype).removeprefix("torch."), list(leaf.shape[1:])) for name, leaf in state.items()]
        draft = self._layout.with_suffix(".tmp")
        try:
            draft.write_text(json.dumps(self._spec), encoding="utf-8")
            draft.replace(self._layout)
        except OSError as error:
            raise DiskError(f"{self._layout} cannot be written: {error.strerror}") from error

    def _pack(self, clients: Sequence[int], state: Params, round: int) -> Bytes:
        rows = [np.ascontiguousarray(state[name].detach().cpu().numpy()).reshape(len(clients), -1).view(np.uint8)
                for name, _, _ in self._spec]
        rows.append(np.zeros((len(clients), self._size - HEAD.itemsize - self._body), np.uint8))
        body = np.concatenate(rows, axis=1)
        head = np.zeros(len(clients), HEAD)
        head["client"], head["round"] = clients, round
        head["crc"] = [zlib.crc32(row.tobytes()) for row in body]
        head["seal"] = [zlib.crc32(one.tobytes()[:-8]) for one in head]
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
        turn, round = self._version[client]
        try:
            record = np.frombuffer(os.pread(self._files[turn], self._size, self._place[client] * self._size), np.uint8)
        except OSError as error:
            raise DiskError(f"{self.path}: the private state of client {client} cannot be read: {error.strerror}") from error
        head = _head(record[: HEAD.itemsize].tobytes()) if len(record) == self._size else None
        if head is None or (head["client"], head["round"]) != (client, round) or (
                zlib.crc32(record[HEAD.itemsize :].tobytes()) != head["crc"]):
            raise DiskError(f"{self.path}: the private state of client {client} is damaged")
        return record

    def _scan(self, before: int) -> None:
        """Finds every client's newest state of a round before `before`."""
        for turn, file in enumerate(self._files):
            for place in range(-(-os.fstat(file).st_size // self._size)):
                raw = os.pread(file, HEAD.itemsize, place * self._size)
                if len(raw) < HEAD.itemsize or not any(raw):  # nothing was written here yet
                    continue
                head = _head(raw)
                client = int(np.frombuffer(raw, HEAD)[0]["client"])
                if head is None or (turn and client not in self._place):  # everyone's first state goes to the first file
                    who = next((c for c, p in self._place.items() if p == place), client)
                    raise DiskError(f"{self.path}: the private state of client {who} is damaged")
                self._place[client] = place
                if self._version.get(client, (0, -1))[1] < int(head["round"]) < before:
                    self._version[client] = (turn, int(head["round"]))

    def _rest(self) -> None:
        """Lets clients go from memory that were not asked for longest, as long as too much is held."""
        size = max(self._size - HEAD.itemsize, 1)
        while len(self._row) * size > self.resident and len(self._row) > 1:
            self._free.append(self._row.popitem(last=False)[1])


def _head(raw: bytes) -> Any:
    """The head of a record, or None where it is not what was written."""
    head = np.frombuffer(raw, HEAD)[0]
    return head if zlib.crc32(raw[:-8]) == head["seal"] else None


def _write(file: int, data: bytes, offset: int) -> None:
    """All of `data`: the system may take less at a time."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(file, rest, offset)
        rest, offset = rest[written:], offset + written
