"""Between parameters and Flower's messages. Every private name of Flower that fedmtl needs is used in this file alone."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from flwr.app import Array, ArrayRecord, ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.common.constant import ErrorCode
from flwr.supercore.run import Run
from flwr.supercore.task_identity import TaskIdentity

from fedmtl.algorithms.steps import WORK
from fedmtl.trees import Params

R = TypeVar("R", ArrayRecord, ConfigRecord, MetricRecord)
T = TypeVar("T", ArrayRecord, ConfigRecord, MetricRecord, RecordDict)

ARRAYS, ABOUT, CLIENTS = "arrays", "about", "clients"
"""The records of a message: parameters, what is asked or answered, and one list a column with a value for each client."""

LEDGER = (*WORK, "kept", "kept-bytes")
"""What a train reply says of each client's work, a column each; of its private state how many numbers and bytes it is."""

FAILED, LEAKED = 1000, 1001
"""Codes of error replies: the node could not answer; a method tried to send what is private."""


def empty_run() -> Run:
    """A run for a grid of our own; sets the identity that Flower's messages want of the sending process."""
    run = Run.create_empty(run_id=uuid.uuid4().int & (2**62 - 1))
    TaskIdentity.run_id, TaskIdentity.task_id, TaskIdentity.node_id = run.run_id, 1, 1
    return run


def set_message_id(message: Message) -> str:
    """Gives a message the id by which its reply is recognised."""
    message.metadata.__dict__["_message_id"] = name = uuid.uuid4().hex
    return name


@lru_cache(maxsize=4096)
def _header(dtype: np.dtype[Any], shape: tuple[int, ...]) -> tuple[str, bytes]:
    """(the name of the dtype, what numpy.save writes before the numbers)."""
    out = BytesIO()
    np.lib.format.write_array_header_1_0(out, {"descr": dtype.str, "fortran_order": False, "shape": shape})
    return str(dtype), out.getvalue()


def _encode(array: npt.NDArray[Any]) -> Array:
    """Array(array), without asking numpy for the same header every time, and without the look at what kind of input it is."""
    dtype, header = _header(array.dtype, array.shape)
    out = Array.__new__(Array)
    out.dtype, out.shape, out.stype = dtype, array.shape, "numpy.ndarray"
    out.data = b"".join((header, np.ascontiguousarray(array).data))
    return out


def to_arrays(params: Params) -> ArrayRecord:
    """Parameters as Flower's record, names kept."""
    return _filled(ArrayRecord(), {name: _encode(leaf.detach().cpu().numpy()) for name, leaf in params.items()})


def _filled(record: T, entries: Mapping[str, Any]) -> T:
    """A record of Flower's with entries that are known to be of its types: it looks at every number of every list itself."""
    record.__dict__["_data"].update(entries)
    return record


def _decode(array: Array) -> npt.NDArray[Any]:
    """Array.numpy() without parsing the header that repeats dtype and shape: the numbers are at the end of the bytes."""
    dtype = np.dtype(array.dtype)
    size = dtype.itemsize * math.prod(array.shape)
    if array.stype != "numpy.ndarray" or dtype.hasobject or not 0 <= len(array.data) - size <= 65536:
        raise ValueError(f"an array of {array.stype} {array.dtype} {list(array.shape)} cannot have {len(array.data)} bytes")
    if b"'fortran_order': True" in array.data[: len(array.data) - size]:
        raise ValueError("an array in Fortran order")
    return np.frombuffer(bytearray(array.data), dtype, offset=len(array.data) - size).reshape(array.shape)


def to_numpy(record: ArrayRecord) -> dict[str, npt.NDArray[Any]]:
    """Flower's record as numpy arrays. Raises ValueError where bytes are no arrays; never unpickles."""
    return {name: _decode(array) for name, array in record.items()}


def to_params(record: ArrayRecord) -> Params:
    """Flower's record as parameters."""
    return {name: torch.from_numpy(array) for name, array in to_numpy(record).items()}


def request(kind: str, node: int, about: Mapping[str, Any], arrays: ArrayRecord | None = None) -> Message:
    """A message to a node. kind: query, train or evaluate; about: scalars and lists of scalars."""
    records = _records({ABOUT: _filled(ConfigRecord(), about)}, arrays)
    return Message(records, dst_node_id=node, message_type=kind, group_id=str(about.get("round", "")))


def answer(message: Message, columns: Mapping[str, Sequence[int] | Sequence[float]], about: Mapping[str, Any],
           arrays: ArrayRecord | None = None) -> Message:
    """The reply to a message. columns: lists with one value for each client, in one order."""
    told = _filled(MetricRecord(), {name: list(column) for name, column in columns.items()})
    return Message(_records({CLIENTS: told, ABOUT: _filled(ConfigRecord(), about)}, arrays), reply_to=message)


def _records(records: dict[str, Any], arrays: ArrayRecord | None) -> RecordDict:
    return _filled(RecordDict(), records if arrays is None else {**records, ARRAYS: arrays})


def refusal(message: Message, reason: str, code: int = FAILED) -> Message:
    """The reply of a node that cannot answer."""
    return Message(Error(code=code, reason=reason), reply_to=message)


def app_error(message: Message, error: Exception) -> Message:
    """What Flower's own engine replies for a ClientApp that raised."""
    return refusal(message, f"{type(error)}:<'{error}'>", ErrorCode.CLIENT_APP_RAISED_EXCEPTION)


def size_of(params: Params) -> int:
    """Bytes of the numbers in parameters."""
    return sum(leaf.numel() * leaf.element_size() for leaf in params.values())


def _record(message: Message, name: str, kind: type[R]) -> R:
    found = message.content[name]  # Flower's own views by kind are made anew at every look
    if not isinstance(found, kind):
        raise KeyError(name)
    return found


def about(message: Message) -> dict[str, Any]:
    """What a message asks or answers beside its arrays and columns. Raises KeyError where it is absent."""
    return dict(_record(message, ABOUT, ConfigRecord).items())


def column(message: Message, name: str) -> npt.NDArray[Any]:
    """One column of a reply. Raises KeyError where it is absent."""
    return np.asarray(_record(message, CLIENTS, MetricRecord)[name])


def payload(message: Message) -> ArrayRecord:
    """The parameters in a message. Raises KeyError where it has none."""
    return _record(message, ARRAYS, ArrayRecord)
