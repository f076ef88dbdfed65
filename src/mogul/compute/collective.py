"""Processes that make one fit together: who they are, and the sums and messages they share."""

from __future__ import annotations

import os
import uuid
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import PrefixStore, TCPStore

from mogul.compute.heartbeat import Heartbeat
from mogul.errors import InputError

_LOST = ("Connection closed by peer", "Connection reset", "Broken pipe", "remote process")
_BUCKET = 2**19  # values, 4 MB: one is packed while the one before travels
_PATIENCE = timedelta(hours=6)  # of a sum for the slowest; heartbeats tell of those that hang


@dataclass(frozen=True)
class Group:
    """Processes that fit together, each with its own share of the rows: this one's rank of `world`.

    `Group()` is one process alone, whose sums are its own. `run` is a name that processes which
    torchrun begins anew have in common with those before.
    """

    rank: int = 0
    world: int = 1
    run: str = ""

    @property
    def first(self) -> bool:
        """Whether this process is the one that speaks and writes files."""
        return self.rank == 0

    @torch.no_grad()
    def add(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor, in place, by its sum over all processes.

        The tensors travel in buckets, one packed or unpacked while others are on their way, so
        that bytes on the wire depend on their size alone.
        """
        if self.world == 1:
            return
        waiting = [(bucket, flat, dist.all_reduce(flat, async_op=True)) for bucket, flat in
                   _packed(tensors)]  # fmt: skip
        for bucket, flat, work in waiting:
            assert work is not None
            work.wait()
            sizes = [part.numel() for part in bucket]
            for part, values in zip(bucket, flat.split(sizes), strict=True):
                part.copy_(values.view(part.shape))

    def total(self, *values: float) -> list[float]:
        """Return the sums of numbers over all processes."""
        sums = torch.tensor(values, dtype=torch.float64)
        self.add([sums])
        return sums.tolist()

    def gather(self, value: Any) -> list[Any]:
        """Return what every process gave, in the order of ranks, to all; tensors on the CPU."""
        if self.world == 1:
            return [value]
        found: list[Any] = [None] * self.world
        dist.all_gather_object(found, _on_cpu(value))
        return found

    def collect(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes' tensors, one after the other, to all of them."""
        return tensor if self.world == 1 else torch.cat(self.gather(tensor)).to(tensor.device)

    def brought(self, tensor: Tensor) -> Tensor:
        """Return the rows of all processes' tensors to the first; to the others, their own."""
        if self.world == 1:
            return tensor
        found: list[Any] | None = [None] * self.world if self.first else None
        dist.gather_object(tensor.cpu(), found, dst=0)
        return tensor if found is None else torch.cat(found)

    def said(self, value: Any) -> Any:
        """Return what the first process gave, to all of them; tensors on the CPU."""
        if self.world == 1:
            return value
        held = [_on_cpu(value) if self.first else None]
        dist.broadcast_object_list(held, src=0)
        return held[0]

    def replicated(self, module: nn.Module) -> nn.Module:
        """Return a module whose backward pass averages gradients over all processes."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)


def _on_cpu(value: Any) -> Any:
    """Return a value with all tensors in it on the CPU: a message tells of no device."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, dict):
        return {key: _on_cpu(each) for key, each in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_on_cpu(each) for each in value)
    return value


def group_of(source: Any) -> Group:
    """Return the processes among which a source is split; one that was not is this one's alone."""
    return getattr(source, "group", None) or Group()


def _packed(tensors: Sequence[Tensor]) -> Generator[tuple[list[Tensor], Tensor]]:
    """Yield flat copies of tensors, in buckets of one type and device, and what is in each."""
    for kind in dict.fromkeys((t.dtype, t.device) for t in tensors):
        own = [t for t in tensors if (t.dtype, t.device) == kind]
        pieces = [p for t in own for p in _pieces(t)]
        bucket: list[Tensor] = []
        for piece in pieces:
            if bucket and sum(p.numel() for p in bucket) + piece.numel() > _BUCKET:
                yield bucket, torch.cat([p.flatten() for p in bucket])
                bucket = []
            bucket.append(piece)
        if bucket:
            yield bucket, torch.cat([p.flatten() for p in bucket])


def _pieces(tensor: Tensor) -> list[Tensor]:
    """Return views of a tensor, each of at most a bucket where its first dimension allows."""
    if tensor.dim() == 0:
        return [tensor]
    rows = max(1, _BUCKET // max(1, tensor[:1].numel()))
    return [part for part in tensor.split(rows) if part.numel()]


def is_launched() -> bool:
    """Whether torchrun, or another launcher that sets RANK and WORLD_SIZE, began this process."""
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def restarts() -> int:
    """Return how often torchrun began these processes anew."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


@contextmanager
def joined() -> Generator[Group]:
    """Join the processes that torchrun began, and part from them at the end.

    A process that was not begun by torchrun is alone. One that stops answering ends all others with
    a message, so that torchrun can begin them anew.

    Raises:
        InputError: if the others cannot be reached, or one of them is lost.
        RuntimeError: what else goes wrong among them, as it came.
    """
    if not is_launched():
        yield Group(run=_run_name(_store(0)) if "TORCHELASTIC_RUN_ID" in os.environ else "")
        return
    rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    try:
        store = _store(rank)
        run = _run_name(store)
        # Keys of a group that was killed would be taken for those of the present one.
        own = PrefixStore(f"start {restarts()}", store)
        backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
        dist.init_process_group(backend, store=own, rank=rank, world_size=world, timeout=_PATIENCE)
    except (RuntimeError, KeyError) as error:
        raise InputError(
            f"Process {rank} of {world} cannot reach the others ({type(error).__name__}: {error}); "
            "start all by torchrun, or set RANK, WORLD_SIZE, MASTER_ADDR and MASTER_PORT in each."
        ) from error
    beats = PrefixStore(f"beat {restarts()}", _store(rank, host=False))
    with Heartbeat(beats, rank, world):
        try:
            yield Group(rank, world, run)
        except RuntimeError as error:
            if not any(words in str(error) for words in _LOST):
                raise
            raise InputError(
                f"Process {rank} of {world} lost another one. If torchrun may begin processes anew "
                "(--max-restarts), the fit goes on by itself after its last whole pass; otherwise "
                "start it again with --resume."
            ) from error
        finally:
            dist.destroy_process_group()


def _run_name(store: Any) -> str:
    """Return the name of a run, which the first who asks makes up."""
    return store.compare_set("run", "", uuid.uuid4().hex).decode()


def _store(rank: int, host: bool = True) -> Any:
    """Return a connection to what processes have in common, at torchrun's agent or at rank 0."""
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    host = host and rank == 0 and not kept
    wait = timedelta(seconds=120)
    store = TCPStore(address, port, None, host, wait, wait_for_workers=False)
    return PrefixStore("mogul", store)
