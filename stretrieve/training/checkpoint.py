"""State of a training on disk: one safetensors file, replaced in one step, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor, nn

from stretrieve._failpoints import crash_point
from stretrieve._files import atomic_path
from stretrieve.errors import MismatchError, explain

FILE: Final = "training.safetensors"
_NETWORK: Final = "network."
_BEST: Final = "best."
_OPTIMISER: Final = "optimiser."


@dataclass(frozen=True)
class Checkpoint:
    """State after an epoch.

    Parameters
    ----------
    key
        Digest of settings and data; another training does not take the checkpoint up.
    state
        Phase, epoch and history, as plain JSON data.
    network
        The network's ``state_dict``.
    optimiser
        Tensors of the optimiser, ``"<parameter>.<name>"``.
    best
        ``state_dict`` of the best epoch, where it is another one.
    """

    key: str
    state: dict[str, Any]
    network: Mapping[str, Tensor]
    optimiser: Mapping[str, Tensor]
    best: Mapping[str, Tensor]

    def write(self, folder: Path) -> None:
        """Write the file; a kill at any moment leaves the earlier one or this one."""
        from safetensors.torch import save

        tensors = {
            prefix + name: tensor.detach().cpu().contiguous()
            for prefix, group in (
                (_NETWORK, self.network),
                (_OPTIMISER, self.optimiser),
                (_BEST, self.best),
            )
            for name, tensor in group.items()
        }
        metadata = {"key": self.key, "state": json.dumps(self.state)}
        crash_point("write the checkpoint")
        with atomic_path(folder / FILE) as path:
            path.write_bytes(save(tensors, metadata))
        crash_point("wrote the checkpoint")


def read_checkpoint(folder: Path, *, key: str) -> Checkpoint | None:
    """Return the checkpoint of a training; ``None`` when there is none.

    Raises
    ------
    MismatchError
        When it belongs to other settings or data, or cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(str(path), framework="pt", device="cpu") as stored:
            metadata = dict(stored.metadata() or {})
            tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
        state = json.loads(metadata["state"])
    except (SafetensorError, KeyError, ValueError) as error:
        raise MismatchError(
            explain(f"checkpoint {path}", got="unreadable", remedy="remove it")
        ) from error
    if metadata["key"] != key:
        raise MismatchError(
            explain(
                f"checkpoint {path}",
                got="one of another training",
                expected="the same settings and sections",
                remedy="remove it or train elsewhere",
            )
        )
    return Checkpoint(
        key,
        state,
        _group(tensors, _NETWORK),
        _group(tensors, _OPTIMISER),
        _group(tensors, _BEST),
    )


def _group(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as tensors named ``"<parameter>.<name>"``."""
    return {
        f"{number}.{name}": torch.as_tensor(value)
        for number, state in optimiser.state_dict()["state"].items()
        for name, value in state.items()
    }


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take back what :func:`optimiser_tensors` gave."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict(
        {"state": state, "param_groups": optimiser.state_dict()["param_groups"]}
    )


def trained_tensors(network: nn.Module) -> dict[str, Tensor]:
    """Return CPU copies of what training can change: parameters with gradients, and buffers."""
    frozen = {name for name, p in network.named_parameters() if not p.requires_grad}
    return {
        name: tensor.detach().cpu().clone()
        for name, tensor in network.state_dict().items()
        if name not in frozen
    }
