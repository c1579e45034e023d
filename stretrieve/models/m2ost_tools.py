"""M2OST beside its paper: the published weights by our names, and the cost of one spot."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn

from stretrieve.errors import EmbedderMismatchError, explain
from stretrieve.models.m2ost import M2ostSettings

Names = Iterator[tuple[str, str]]


def published_names(settings: M2ostSettings) -> dict[str, str]:
    """Return the names of all weights: ours to those of the released code.

    The released code also holds a normalisation layer per block that its forward pass never uses
    (``transformer.layers.*.0.norm``); it has no counterpart here.

    Parameters
    ----------
    settings
        Sizes; the released code has three levels, the names go on in the same manner for others.
    """
    names = {"encoder.class_token": "cls_token"}
    for i in range(settings.n_levels):
        names[f"encoder.positions.{i}"] = f"pos_embedding{i + 1}"
        names.update(_grain_names(i))
    names.update(_pair("encoder.norm", "transformer.norm"))
    names.update(_pair("head", "mlp_head"))
    for depth in range(settings.depth):
        names.update(_block_names(depth, settings.n_levels))
    return names


def _pair(ours: str, theirs: str) -> Names:
    for part in ("weight", "bias"):
        yield f"{ours}.{part}", f"{theirs}.{part}"


def _grain_names(grain: int) -> Names:
    for ours, theirs in (("norm_in", 1), ("hidden", 2), ("out", 4), ("norm_out", 5)):
        published = f"to_patch_embedding{grain + 1}.{theirs}"
        yield from _pair(f"encoder.grains.{grain}.{ours}", published)


def _block_names(depth: int, n_levels: int) -> Names:
    ours, theirs = f"encoder.blocks.{depth}", f"transformer.layers.{depth}"
    for mlp, numbered in (("mlp", "1.split_mlp"), ("channels", "3.net")):
        for part, number in (("norm", 0), ("hidden", 1), ("out", 4)):
            yield from _pair(f"{ours}.{mlp}.{part}", f"{theirs}.{numbered}.{number}")
    for i in range(n_levels):
        yield f"{ours}.intra.qkv.{i}.weight", f"{theirs}.0.to_qkv{i + 1}.weight"
        yield from _pair(f"{ours}.intra.out.{i}", f"{theirs}.0.to_out{i + 1}.0")
    if n_levels == 1:
        return
    yield from _pair(f"{ours}.cross.norm", f"{theirs}.2.norm")
    for i in range(n_levels):
        for part in ("query", "key", "value"):
            yield f"{ours}.cross.{part}.{i}.weight", f"{theirs}.2.to_{part[0]}{i}.weight"
        yield from _pair(f"{ours}.cross.out.{i}", f"{theirs}.2.to_out{i}.0")


def from_published(state: Mapping[str, Tensor], settings: M2ostSettings) -> dict[str, Tensor]:
    """Return the released code's ``state_dict`` under our names.

    Parameters
    ----------
    state
        Published names to weights.
    settings
        Sizes of the network that the weights belong to.

    Raises
    ------
    EmbedderMismatchError
        When a weight is missing.
    """
    names = published_names(settings)
    missing = [theirs for theirs in names.values() if theirs not in state]
    if missing:
        raise EmbedderMismatchError(
            explain("M2OST weights", got=f"no {missing[0]!r}", expected=f"{len(names)} arrays")
        )
    return {ours: state[theirs] for ours, theirs in names.items()}


def count_parameters(module: nn.Module) -> int:
    """Return the number of trainable weights of a module."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)


def m2ost_flops(settings: M2ostSettings, *, n_outputs: int = 0) -> int:
    """Return the floating-point operations of one spot, a multiply and an add counted as two.

    Counted are matrix products (linear layers and attention), as common counters do; divide by two
    for multiply-accumulates, which some papers print as "FLOPs".

    Parameters
    ----------
    settings
        Sizes.
    n_outputs
        Width of the regression head; 0 without.
    """
    s = settings
    macs = sum(_grain_macs(s, j) * (s.n_levels - j) for j in range(s.n_levels))
    macs += s.depth * (_within_macs(s) + _across_macs(s) + 2 * s.dim * s.gate_width)
    return 2 * (macs + s.dim * n_outputs)


def _grain_macs(s: M2ostSettings, grain: int) -> int:
    inputs, hidden = 3 * (s.patch_px >> grain) ** 2, max(s.dim >> grain, 1)
    return s.n_squares * (inputs * hidden + hidden * s.width)


def _within_macs(s: M2ostSettings) -> int:
    inner = s.heads * s.dim_head
    per_token = 4 * s.width * inner + 2 * s.width * s.mlp_hidden
    return sum(n * per_token + 2 * n * n * inner for n in s.n_tokens)


def _across_macs(s: M2ostSettings) -> int:
    if s.n_levels == 1:
        return 0
    inner, total = s.cross_heads * s.dim_head, sum(s.n_tokens)
    projections = total * s.width * inner * (3 + s.n_levels - 1)
    pairs = sum(n * (total - n) for n in s.n_tokens)
    return projections + 2 * inner * pairs
