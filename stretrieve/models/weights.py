"""Where an encoder's weights come from: safetensors only, with source, revision and licence."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stretrieve.errors import ConfigError, InputError, InputNotFoundError, explain

HUB_PREFIX = "hf-hub:"
SUFFIX = ".safetensors"


class WeightSource(StrEnum):
    """Kinds of places that weights come from."""

    NONE = "none"
    """Seeded random numbers."""
    PRETRAINED = "pretrained"
    """What the library that defines the architecture publishes for it."""
    FILE = "file"
    FOLDER = "folder"
    HUB = "hub"


@dataclass(frozen=True)
class WeightFiles:
    """Weights on this machine.

    Parameters
    ----------
    source
        Kind of place.
    file
        The safetensors file; ``None`` for seeded weights.
    config
        The model description beside the file (``config.json``); empty when there is none.
    revision
        Commit of a hub repository; empty otherwise.
    """

    source: WeightSource
    file: Path | None = None
    config: Mapping[str, Any] | None = None
    revision: str = ""

    def read(self) -> dict[str, Tensor]:
        """Return the tensors by name, floating-point ones as float32."""
        return read_safetensors(self.file) if self.file else {}


def weight_source(weights: str) -> WeightSource:
    """Return what kind of place ``weights`` names.

    Raises
    ------
    InputNotFoundError
        When it is neither a known word, a hub id nor an existing file or folder.
    """
    if weights in (WeightSource.NONE, WeightSource.PRETRAINED):
        return WeightSource(weights)
    if weights.startswith(HUB_PREFIX):
        return WeightSource.HUB
    path = Path(weights).expanduser()
    if path.is_dir():
        return WeightSource.FOLDER
    if path.is_file():
        return WeightSource.FILE
    raise InputNotFoundError(
        explain(
            "weights",
            got=repr(weights),
            expected="none, pretrained, an existing .safetensors file or folder, or hf-hub:ORG/NAME",
        )
    )


def find_weights(weights: str) -> WeightFiles:
    """Return the files that ``weights`` names, downloading a hub repository when it is one.

    Parameters
    ----------
    weights
        ``none``, a ``.safetensors`` file, a folder with ``config.json`` and one safetensors file,
        or ``hf-hub:ORG/NAME`` with an optional ``@REVISION``. ``pretrained`` is resolved by the
        library that defines the architecture, not here.

    Raises
    ------
    InputNotFoundError
        When there is no such file or folder.
    InputError
        When the place holds no safetensors file.
    """
    source = weight_source(weights)
    if source in (WeightSource.NONE, WeightSource.PRETRAINED):
        return WeightFiles(source)
    if source is WeightSource.HUB:
        folder, revision = _download(weights.removeprefix(HUB_PREFIX))
        return WeightFiles(source, _one_file(folder), _config(folder), revision)
    path = Path(weights).expanduser()
    if source is WeightSource.FOLDER:
        return WeightFiles(source, _one_file(path), _config(path))
    if path.suffix != SUFFIX:
        raise InputError(
            explain("weights", got=path.name, expected="a .safetensors file", remedy=_CONVERT)
        )
    return WeightFiles(source, path)


_CONVERT = "convert other formats once with safetensors.torch.save_file"


def read_safetensors(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file by name, floating-point ones as float32.

    Raises
    ------
    InputError
        When the file is not readable as safetensors.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(str(path), device="cpu")
    except (OSError, SafetensorError) as error:
        raise InputError(
            explain(f"weights {path.name}", got=error, expected="a safetensors file")
        ) from error
    return {k: v.float() if v.is_floating_point() else v for k, v in tensors.items()}


def state_digest(state: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over names, shapes, types and bytes of a ``state_dict``."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _one_file(folder: Path) -> Path:
    preferred = [folder / name for name in ("model.safetensors", "open_clip_model.safetensors")]
    found = [path for path in preferred if path.is_file()] or sorted(folder.glob(f"*{SUFFIX}"))
    if len(found) == 0 or (len(found) > 1 and found[0] not in preferred):
        raise InputError(
            explain(
                f"weights in {folder.name}",
                got=f"{len(found)} safetensors files",
                expected="one model.safetensors",
                remedy=_CONVERT,
            )
        )
    return found[0]


def _config(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.json"
    if not path.is_file():
        return None
    try:
        data = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(explain(f"{folder.name}/config.json", got=error)) from error
    return data if isinstance(data, dict) else None


def _download(hub_id: str) -> tuple[Path, str]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    name, _, revision = hub_id.partition("@")
    if name.count("/") != 1:
        raise ConfigError(
            explain("hub id", got=repr(hub_id), expected="hf-hub:ORG/NAME or hf-hub:ORG/NAME@REV")
        )
    try:
        folder = snapshot_download(
            name, revision=revision or None, allow_patterns=["*.json", f"*{SUFFIX}"]
        )
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise InputError(
            explain(
                f"weights {HUB_PREFIX}{hub_id}",
                got=f"{type(error).__name__}",
                remedy="check the name, the network and, for gated models, your access token",
            )
        ) from error
    return Path(folder), Path(folder).name
