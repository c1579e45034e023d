"""Construction of the network behind an image encoder, through timm or open_clip."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stretrieve.errors import ConfigError, EmbedderMismatchError, InputError, explain
from stretrieve.models.weights import (
    SUFFIX,
    WeightFiles,
    WeightSource,
    find_weights,
    read_safetensors,
    weight_source,
)

OPEN_CLIP_PREFIX = "open_clip:"
AUTO = "auto"
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Tower:
    """A network and what is known about it.

    Parameters
    ----------
    network
        Maps ``(batch, 3, height, width)`` to features.
    library, architecture, model_kwargs
        How to build it again.
    mean, std
        Its RGB normalisation on the scale 0 to 1.
    native_px
        Side of the images it was designed for.
    fixed_px
        The only side it takes; ``None`` when it takes any.
    source, revision, licence
        Where its weights came from.
    """

    network: nn.Module
    library: str
    architecture: str
    model_kwargs: Mapping[str, Any]
    mean: Triple
    std: Triple
    native_px: int
    fixed_px: int | None
    source: str
    revision: str = ""
    licence: str = ""


class _Make(Protocol):
    def __call__(self, state: dict[str, Tensor] | None) -> nn.Module: ...


def build_tower(
    backbone: str, *, weights: str, seed: int, model_kwargs: Mapping[str, Any]
) -> Tower:
    """Build a tower; see :class:`~stretrieve.models.encoders.EncoderSettings` for the arguments.

    Raises
    ------
    ConfigError
        When the architecture is unknown or its arguments are wrong.
    InputError
        When the weights are missing or not safetensors.
    EmbedderMismatchError
        When the weights do not fit the architecture.
    """
    if backbone.startswith(OPEN_CLIP_PREFIX):
        return _open_clip(backbone.removeprefix(OPEN_CLIP_PREFIX), weights, seed, model_kwargs)
    return _timm(backbone, weights, seed, model_kwargs)


def _timm(backbone: str, weights: str, seed: int, model_kwargs: Mapping[str, Any]) -> Tower:
    import timm

    files = find_weights(weights)
    described = dict(files.config or {})
    name = _architecture(backbone, described)
    kwargs = {**described.get("model_args", {}), **model_kwargs}
    overlay = dict(described.get("pretrained_cfg", {}))
    if files.source is WeightSource.PRETRAINED:
        files = _timm_pretrained(name)

    def make(state: dict[str, Tensor] | None) -> nn.Module:
        extra = {**overlay, "state_dict": state, "custom_load": False} if state else overlay
        network: nn.Module = timm.create_model(
            name,
            pretrained=state is not None,
            num_classes=0,
            pretrained_cfg_overlay=extra or None,
            **layer_kwargs(kwargs),
        )
        return network

    network = _make_checked(make, files, name=name, seed=seed)
    config: Mapping[str, Any] = network.pretrained_cfg  # type: ignore[assignment] # timm attribute
    native = int(config.get("input_size", (3, 224, 224))[-1])
    return Tower(
        network=network,
        library="timm",
        architecture=name,
        model_kwargs=kwargs,
        mean=_triple(config.get("mean", (0.5, 0.5, 0.5))),
        std=_triple(config.get("std", (0.5, 0.5, 0.5))),
        native_px=native,
        fixed_px=int(kwargs.get("img_size", native)) if config.get("fixed_input_size") else None,
        source=weights,
        revision=files.revision,
        licence=str(config.get("license") or ""),
    )


def layer_kwargs(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments with layers that are named in plain data turned into classes."""
    from timm.layers.mlp import Mlp, SwiGLUPacked

    named = {"SwiGLUPacked": SwiGLUPacked, "Mlp": Mlp, "silu": nn.SiLU}
    layers = ("mlp_layer", "act_layer")
    return {k: named.get(v, v) if k in layers else v for k, v in kwargs.items()}


def _architecture(backbone: str, described: Mapping[str, Any]) -> str:
    import timm

    found = str(described.get("architecture", ""))
    name = found if backbone == AUTO else backbone
    if found and name != found:
        raise ConfigError(
            explain("backbone", got=repr(backbone), expected=f"{found!r}, as the weights say")
        )
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.split('_')[0]}*")[:3] if name else []
        raise ConfigError(
            explain(
                "backbone",
                got=repr(name or backbone),
                expected="a timm architecture or open_clip:MODEL",
                remedy=f"for example {', '.join(near)}" if near else "",
            )
        )
    return name


def _timm_pretrained(name: str) -> WeightFiles:
    import timm

    config = timm.get_pretrained_cfg(name)
    hub_id = getattr(config, "hf_hub_id", None)
    if config is None or not hub_id:
        raise InputError(
            explain(f"pretrained weights of {name}", got="none published as safetensors")
        )
    hub_id = hub_id if "/" in hub_id else f"timm/{hub_id}"
    if hub_id.endswith("/"):
        hub_id = f"{hub_id}{config.architecture}.{config.tag}"
    found = find_weights(f"hf-hub:{hub_id}")
    return WeightFiles(WeightSource.PRETRAINED, found.file, None, found.revision)


def _open_clip(backbone: str, weights: str, seed: int, model_kwargs: Mapping[str, Any]) -> Tower:
    import open_clip

    name, _, tag = backbone.partition("@")
    if name not in open_clip.list_models():
        known = ", ".join(open_clip.list_models()[:5])
        raise ConfigError(explain("open_clip model", got=repr(name), expected=f"one of {known}, …"))
    if weight_source(weights) is WeightSource.PRETRAINED:
        files = _open_clip_pretrained(name, tag)
    else:
        files = find_weights(weights)

    def make(state: dict[str, Tensor] | None) -> nn.Module:
        model = open_clip.create_model(name, pretrained=None, **dict(model_kwargs))
        visual: nn.Module = model.visual
        if state:
            own = {k.removeprefix("visual."): v for k, v in state.items() if k in wanted(visual)}
            visual.load_state_dict(own, strict=True)
        return visual

    def wanted(visual: nn.Module) -> set[str]:
        return {f"visual.{key}" for key in visual.state_dict()}

    network = _make_checked(make, files, name=name, seed=seed)
    size = getattr(network, "image_size", 224)
    side = int(size[0] if isinstance(size, (tuple, list)) else size)
    return Tower(
        network=network,
        library="open_clip",
        architecture=name,
        model_kwargs=dict(model_kwargs),
        mean=_triple(getattr(network, "image_mean", None) or open_clip.OPENAI_DATASET_MEAN),
        std=_triple(getattr(network, "image_std", None) or open_clip.OPENAI_DATASET_STD),
        native_px=side,
        fixed_px=side,
        source=f"{weights}:{tag}" if tag else weights,
        revision=files.revision,
    )


def _open_clip_pretrained(name: str, tag: str) -> WeightFiles:
    import open_clip

    known = open_clip.list_pretrained_tags_by_model(name)
    config = open_clip.get_pretrained_cfg(name, tag) if tag else {}
    hub = str((config or {}).get("hf_hub") or "").strip("/")
    if not hub:
        raise ConfigError(
            explain(
                "open_clip weights",
                got=f"{name}@{tag}" if tag else f"{name} without a tag",
                expected=f"open_clip:{name}@TAG with TAG among {', '.join(known) or 'none'}",
            )
        )
    found = find_weights("hf-hub:" + "/".join(hub.split("/")[:2]))
    return WeightFiles(WeightSource.PRETRAINED, found.file, None, found.revision)


def _make_checked(make: _Make, files: WeightFiles, *, name: str, seed: int) -> nn.Module:
    """Build the network; refuse weights that leave a part of it at its random start.

    Both networks start from the same random numbers, so that what loading leaves out stays equal.
    """
    try:
        network = _seeded(make, None, seed)
    except (TypeError, RuntimeError, ValueError) as error:
        raise ConfigError(explain(f"backbone {name!r}", got=error)) from error
    if files.file is None:
        return network
    state = read_safetensors(files.file)
    start = network.state_dict()
    try:
        loaded = _seeded(make, state, seed)
    except (RuntimeError, KeyError, ValueError) as error:
        raise EmbedderMismatchError(
            explain(f"weights {_label(files.file)}", got=error, expected=f"weights of {name}")
        ) from error
    left = [key for key, value in loaded.state_dict().items() if _untouched(start[key], value)]
    if left:
        raise EmbedderMismatchError(
            explain(
                f"weights {_label(files.file)}",
                got=f"nothing for {len(left)} tensors such as {left[0]}",
                expected=f"all weights of {name}",
            )
        )
    return loaded


def _seeded(make: _Make, state: dict[str, Tensor] | None, seed: int) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make(state)


def _untouched(start: Tensor, loaded: Tensor) -> bool:
    """Whether a matrix or kernel still is what the random start made of it."""
    return start.ndim >= 2 and bool(start.std() > 0) and torch.equal(start, loaded)


def _label(path: Path) -> str:
    return path.name if path.name != f"model{SUFFIX}" else f"{path.parent.name}/{path.name}"


def _triple(values: Any) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
