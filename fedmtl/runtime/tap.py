"""The audit tap: a copy of every message that crosses a Grid, and a search for what must not be in any of them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from flwr.app import Message, RecordDict
from flwr.serverapp import Grid

from fedmtl.runtime.wrapped import WrappedGrid

LEAST = 16
"""Bytes of the shortest private tensor that is looked for: shorter ones are found in any message by chance."""


class TapGrid(WrappedGrid):
    """Writes each message and each reply to `directory` as NNNNNN-down|up-TYPE-NODE.json and .npz."""

    def __init__(self, grid: Grid, directory: Path) -> None:
        super().__init__(grid)
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        self.count = len(list(directory.glob("*.json")))

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """See WrappedGrid."""
        return self.inner.push_messages([self._seen("down", message) for message in messages])

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """See WrappedGrid."""
        return [self._seen("up", reply) for reply in self.inner.pull_messages(message_ids)]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """See WrappedGrid."""
        sent = [self._seen("down", message) for message in messages]
        return [self._seen("up", reply) for reply in self.inner.send_and_receive(sent, timeout=timeout)]

    def _seen(self, way: str, message: Message) -> Message:
        about = message.metadata
        node = about.dst_node_id if way == "down" else about.src_node_id
        self.count += 1
        stem = self.directory / f"{self.count:06d}-{way}-{about.message_type}-{node}"
        page = {"way": way, "type": about.message_type, "group": about.group_id, "from": about.src_node_id,
                "to": about.dst_node_id, "records": {}, "error": None}
        if message.has_error():
            page["error"] = {"code": message.error.code, "reason": message.error.reason}
        else:
            page["records"] = _plain(message.content)
            np.savez(stem.with_suffix(".npz"), allow_pickle=False, **_arrays(message.content))
        stem.with_suffix(".json").write_text(json.dumps(page, default=_hex), encoding="utf-8")
        return message


def _plain(content: RecordDict) -> dict[str, Any]:
    kinds = (content.config_records, content.metric_records)
    return {name: dict(record) for records in kinds for name, record in records.items()}


def _hex(value: Any) -> str:
    return bytes(value).hex()


def _arrays(content: RecordDict) -> dict[str, npt.NDArray[Any]]:
    """Every array by record and name; bytes that are no array are kept as bytes."""
    out: dict[str, npt.NDArray[Any]] = {}
    for record, arrays in content.array_records.items():
        for name, array in arrays.items():
            try:
                out[f"{record}/{name}"] = array.numpy()
            except ValueError:
                out[f"{record}/{name}"] = np.frombuffer(array.data, np.uint8)
    return out


def tapped(grid: Grid) -> Grid:
    """The grid, under the tap where the environment has FEDMTL_TAP=DIRECTORY."""
    directory = os.environ.get("FEDMTL_TAP")
    return TapGrid(grid, Path(directory)) if directory else grid


def recorded(directory: Path) -> Iterator[tuple[str, str, dict[str, npt.NDArray[Any]]]]:
    """(file, text of everything that is no array, arrays) of each message in a tap's directory, in their order."""
    for page in sorted(directory.glob("*.json")):
        arrays: dict[str, npt.NDArray[Any]] = {}
        if page.with_suffix(".npz").exists():
            with np.load(page.with_suffix(".npz"), allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        yield page.stem, page.read_text(encoding="utf-8"), arrays


def leaks(directory: str | Path, private: Mapping[str, npt.NDArray[Any]]) -> list[str]:
    """Where a tap's directory holds a private tensor: "file: why", one for each find; [] where it holds none.

    Looked for: the name, and the numbers as they are, in float32 or float64, alone or inside a larger array, also times a
    weight that some message names (that is how a sum over one client looks). Tensors under 16 bytes, and those whose
    numbers are all the same, tell nothing by their bytes and are looked for by name only.
    """
    messages = list(recorded(Path(directory)))
    factors = sorted({1.0} | {float(w) for _, text, _ in messages for w in _weights(json.loads(text))})
    patterns = {name: _patterns(np.asarray(tensor), factors) for name, tensor in private.items()}
    found = []
    for file, text, arrays in messages:
        blobs = {name: array.tobytes() for name, array in arrays.items()}
        for name, forms in patterns.items():
            if name in text or any(name in key for key in blobs):
                found.append(f"{file}: the name {name}")
            found += [f"{file}: the bytes of {name} in {key}" for key, blob in blobs.items()
                      if any(form in blob for form in forms)]
            if any(form.hex() in text for form in forms):
                found.append(f"{file}: the bytes of {name} in a config record")
    return found


def _weights(page: dict[str, Any]) -> Iterator[float]:
    for record in page["records"].values():
        for name in ("weights", "num-examples"):
            yield from record.get(name, [])


def _patterns(tensor: npt.NDArray[Any], factors: list[float]) -> list[bytes]:
    if tensor.size < 2 or tensor.nbytes < LEAST or (tensor == tensor.flat[0]).all():
        return []
    wide = tensor.astype(np.float64)
    forms = {tensor.tobytes(), tensor.astype(np.float32).tobytes()} | {(wide * factor).tobytes() for factor in factors}
    return sorted(forms)
