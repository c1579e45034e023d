"""Processes that share a batch, as ``torchrun`` starts them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta

import numpy as np
import torch
from torch import Tensor, nn

from stretrieve.errors import ConfigError, explain
from stretrieve.training.batches import Spots

_PATIENCE = timedelta(days=1)
"""How long processes wait for the first one, which reads slides; ``torchrun`` ends them if it fails."""


@dataclass(frozen=True)
class World:
    """A process among those that share a batch.

    Parameters
    ----------
    rank
        Number of the process.
    size
        Number of processes.
    """

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes files."""
        return self.rank == 0

    def share(self, spots: Spots) -> Spots:
        """Return the process's rows of a batch.

        Raises
        ------
        ConfigError
            When there are fewer rows than processes.
        """
        if len(spots) < self.size:
            raise ConfigError(
                explain("batch_size", got=len(spots), expected=f"at least {self.size} processes")
            )
        return np.array_split(spots, self.size)[self.rank]

    def gather(self, own: Tensor, *, total: int) -> Tensor:
        """Join ``(n_own, ·)`` of all processes to ``(total, ·)``; gradients reach ``own`` only.

        Parameters
        ----------
        own
            The process's rows.
        total
            Rows of all processes.
        """
        if self.size == 1:
            return own
        sizes = [len(part) for part in np.array_split(np.arange(total), self.size)]
        padded = own.new_zeros((max(sizes), *own.shape[1:]))
        padded[: len(own)] = own.detach()
        parts = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(parts, padded)
        joined = [part[:size] for part, size in zip(parts, sizes, strict=True)]
        joined[self.rank] = own
        return torch.cat(joined)

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Add the gradients of all processes, in place."""
        if self.size == 1:
            return
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            torch.distributed.all_reduce(parameter.grad)

    def agree(self, *, wanted: bool) -> bool:
        """Return what the first process wants; the others wait for its word."""
        if self.size == 1:
            return wanted
        word = torch.tensor([wanted])
        torch.distributed.broadcast(word, src=0)
        return bool(word.item())

    def wait(self) -> None:
        """Wait for all processes."""
        if self.size > 1:
            torch.distributed.barrier()


def is_first_process() -> bool:
    """Tell whether this is the process of a ``torchrun`` job that writes files; alone it is."""
    return int(os.environ.get("RANK", "0")) == 0


@contextlib.contextmanager
def open_world(device: torch.device) -> Iterator[World]:
    """Join the processes that ``torchrun`` started; one alone when it did not."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    begun = not torch.distributed.is_initialized()
    if begun:
        backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
        torch.distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield World(torch.distributed.get_rank(), torch.distributed.get_world_size())
    finally:
        if begun:
            torch.distributed.destroy_process_group()
