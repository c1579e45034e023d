"""The network of a two-tower embedder at the start of its training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from stretrieve.embedders.base import Embeddings
from stretrieve.embedders.bimodal_settings import BimodalSettings, ExpressionInput, Head
from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import PatchEncoder
from stretrieve.models.joint import JointSpace
from stretrieve.models.kernels import Kernel
from stretrieve.models.stages import trained_parameters


def empty_model(
    settings: BimodalSettings, encoder: PatchEncoder, *, n_genes: int, dim: int
) -> BimodalModel:
    """Return the network with seeded heads; only the parts that shall be trained want gradients.

    Parameters
    ----------
    settings
        Of the embedder.
    encoder
        The image tower; shared, not copied.
    n_genes
        Size of the gene panel.
    dim
        Width of the joint space.
    """
    closed = settings.head is Head.CLOSED_FORM
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        model = BimodalModel(
            encoder,
            n_genes=n_genes,
            dim=dim,
            dropout=settings.dropout,
            expression_width=0 if closed else settings.expression_width,
            linear=settings.head is not Head.MLP,
        )
    choose_trained(settings, encoder)
    return model.eval()


def choose_trained(settings: BimodalSettings, encoder: PatchEncoder) -> None:
    """Let gradients reach only the tower's last ``backbone_stages`` (none for closed-form heads)."""
    for parameter in encoder.parameters():
        parameter.requires_grad = False
    if settings.head is not Head.CLOSED_FORM:
        for parameter in trained_parameters(encoder.network, settings.backbone_stages):
            parameter.requires_grad = True


def start_model(
    settings: BimodalSettings,
    encoder: PatchEncoder,
    *,
    n_genes: int,
    features: Sequence[Embeddings],
    joint: JointSpace | None,
) -> BimodalModel:
    """Return the network at the start of training.

    Parameters
    ----------
    settings
        Of the embedder.
    encoder
        The image tower.
    n_genes
        Size of the gene panel.
    features
        One array a training section, ``(n_spots, feature_dim)``.
    joint
        The closed-form space to start from; ``None`` for a random start.
    """
    linear = settings.head is not Head.MLP
    dim = joint.dim if joint is not None and linear else settings.width
    model = empty_model(settings, encoder, n_genes=n_genes, dim=dim)
    if joint is not None:
        model.standardise_features(joint.feature_mean, joint.feature_scale)
        if joint.kernel is None:
            start_linear_heads(model, joint.image_map, joint.expression_map)
        else:
            start_kernel_head(model, joint.image_map, joint.kernel)
            start_linear_head(model.expression_projection, joint.expression_map)
    elif settings.expression_input is not ExpressionInput.LOG:
        pooled = np.concatenate(features).astype(np.float64)
        scale = pooled.std(axis=0)
        model.standardise_features(pooled.mean(axis=0), np.where(scale > 1e-8, scale, 1.0))
    return model


def start_kernel_head(
    model: BimodalModel, image_map: npt.NDArray[np.floating], kernel: Kernel
) -> None:
    """Let the image head compute a map ``(n_landmarks, dim)`` of a kernel's values."""
    weight = torch.from_numpy(np.ascontiguousarray(image_map.T))
    head = model.use_kernel(len(kernel.landmarks))
    head.start(torch.from_numpy(kernel.landmarks), kernel.width, weight)


def start_linear_heads(
    model: BimodalModel,
    image_map: npt.NDArray[np.floating],
    expression_map: npt.NDArray[np.floating],
) -> None:
    """Let both heads compute linear maps, each ``(in_features, rank)``."""
    start_linear_head(model.image_projection, image_map)
    start_linear_head(model.expression_projection, expression_map)


def start_linear_head(head: nn.Module, weights: npt.NDArray[np.floating]) -> None:
    """Let a head compute a linear map ``(in_features, rank)``."""
    weight = torch.from_numpy(weights.T.astype(np.float32).copy())
    head.start_linear(weight, torch.zeros(len(weight)))  # type: ignore[operator] # either kind of head
