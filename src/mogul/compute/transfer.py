"""Batches on their way to a GPU while it works on those before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch

from mogul.compute.prefetch import ahead

_AHEAD = 2  # batches on their way


def staged(
    source: Any, size: int, dtype: torch.dtype, device: torch.device
) -> Iterator[Callable[[], Any]]:
    """Yield what `source.parts` yields; for a GPU, batches that a thread has sent there ahead.

    They leave from pinned memory on a stream of their own, so that reading, sending and computing
    overlap. Data that are on the device already stay where they are.
    """
    if device.type != "cuda" or getattr(source, "resident", False):
        yield from source.parts(size, dtype, device)
        return
    stream = torch.cuda.Stream(device)
    sent = (_send(part(), device, stream) for part in source.parts(size, dtype, "cpu"))
    for batch, arrived in ahead(sent, _AHEAD):
        yield lambda batch=batch, arrived=arrived: _received(batch, arrived, device)


def _send(batch: Any, device: torch.device, stream: torch.cuda.Stream) -> tuple[Any, Any]:
    """Begin to send a batch; return it as it will be, and the event of its arrival."""
    with torch.cuda.stream(stream):
        x = batch.x.pin_memory().to(device, non_blocking=True)
        weight = batch.weight
        if weight is not None:
            weight = weight.pin_memory().to(device, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record(stream)
    return batch._replace(x=x, weight=weight), arrived


def _received(batch: Any, arrived: Any, device: torch.device) -> Any:
    """Let the device wait for a batch, and keep its memory for as long as it works on it."""
    working = torch.cuda.current_stream(device)
    working.wait_event(arrived)
    for tensor in (batch.x, batch.weight):
        if tensor is not None:
            tensor.record_stream(working)
    return batch
