"""One optimiser step on a batch that need not fit into memory at once.

The batch is encoded in parts without gradients, the loss of the whole batch is differentiated with
respect to the outputs, and the parts are encoded again to carry those gradients into the weights
(GradCache: Gao et al., "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup",
2021).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stretrieve.embedders.trainable import TrainableEmbedder, TrainBatch
from stretrieve.training.parallel import World

Outputs = dict[str, Tensor]
_PRIME = 1_000_003


@dataclass(frozen=True)
class Arithmetic:
    """Where and how precisely the forward pass runs.

    Parameters
    ----------
    device
        Of the network.
    reduced
        Whether matrix products run in bfloat16.
    """

    device: torch.device
    reduced: bool = False

    def seed(self, value: int) -> None:
        """Seed what dropout draws from; ``torch.manual_seed`` would cost more than a small step."""
        torch.default_generator.manual_seed(value)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(value)

    @contextlib.contextmanager
    def forward(self) -> Iterator[None]:
        """Run the block's products in the chosen precision."""
        with torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.reduced):
            yield


def accumulate_gradients(
    embedder: TrainableEmbedder,
    parts: Sequence[Callable[[], TrainBatch]],
    *,
    seed: int,
    total: int,
    world: World,
    arithmetic: Arithmetic,
) -> float:
    """Add the gradients of a batch's mean loss to the parameters; return the loss.

    Parameters
    ----------
    embedder
        Encodes parts and knows the loss.
    parts
        Give this process's parts of the batch, in order.
    seed
        Of dropout in this step.
    total
        Spots of the whole batch, over all processes.
    world
        The processes that share the batch.
    arithmetic
        Device and precision.
    """

    def encode(number: int) -> Outputs:
        arithmetic.seed((seed * _PRIME + number * world.size + world.rank) % (1 << 63))
        with arithmetic.forward():
            outputs = embedder.encode_batch(parts[number]())
        return {name: _full(tensor) for name, tensor in outputs.items()}

    if len(parts) == 1 and world.size == 1:
        loss = embedder.loss(encode(0))
        loss.backward()  # type: ignore[no-untyped-call] # torch
        return float(loss.detach())
    with torch.no_grad():
        cached = [encode(number) for number in range(len(parts))]
    leaves = {name: torch.cat([c[name] for c in cached]) for name in cached[0]}
    for leaf in leaves.values():
        leaf.requires_grad = leaf.is_floating_point()
    loss = embedder.loss({n: world.gather(leaf, total=total) for n, leaf in leaves.items()})
    (loss / world.size).backward()  # type: ignore[no-untyped-call] # torch
    sizes = [len(next(iter(c.values()))) for c in cached]
    start = 0
    for number, size in enumerate(sizes):
        _carry(encode(number), leaves, slice(start, start + size), world.size)
        start += size
    return float(loss.detach())


def _carry(outputs: Outputs, leaves: Outputs, rows: slice, factor: int) -> None:
    """Send the gradients at some rows of the outputs into the weights."""
    tensors, gradients = [], []
    for name, tensor in outputs.items():
        gradient = leaves[name].grad
        if tensor.requires_grad and gradient is not None:
            tensors.append(tensor)
            gradients.append(gradient[rows] * factor)
    if tensors:
        torch.autograd.backward(tensors, gradients)


def _full(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor
