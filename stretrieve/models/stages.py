"""The stages of an image tower, so that only its last ones may be trained."""

from __future__ import annotations

from torch import nn

from stretrieve.errors import ConfigError, explain


def trained_parameters(network: nn.Module, stages: int) -> list[nn.Parameter]:
    """Return the parameters of a tower's last stages.

    Parameters
    ----------
    network
        A timm or open_clip tower.
    stages
        How many, counted from the output; 0 for none, −1 for all.

    Raises
    ------
    ConfigError
        When the tower does not say what its stages are, or has fewer.
    """
    if stages == 0:
        return []
    if stages < 0:
        return list(network.parameters())
    groups = _stages(network)
    if stages > len(groups):
        raise ConfigError(
            explain("backbone_stages", got=stages, expected=f"at most {len(groups)}, or -1 for all")
        )
    named = dict(network.named_parameters())
    return [named[name] for group in groups[-stages:] for name in group]


def _stages(network: nn.Module) -> list[list[str]]:
    """Return parameter names by stage, input first."""
    matcher = getattr(network, "group_matcher", None)
    if matcher is None:
        return _children(network)
    from timm.models import group_parameters

    grouped = group_parameters(network, matcher(coarse=True))
    return [list(grouped[key]) for key in sorted(grouped)]


def _children(network: nn.Module) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name, _ in network.named_parameters():
        groups.setdefault(name.split(".")[0], []).append(name)
    if len(groups) < 2:
        raise ConfigError(
            explain("backbone_stages", got="a tower of one part", expected="0 or -1 for it")
        )
    return list(groups.values())
