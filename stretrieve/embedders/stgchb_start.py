"""The network of the ``stgchb`` embedder at the start of its training."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from stretrieve._progress import Progress
from stretrieve.embedders.stgchb_settings import InfomaxSettings
from stretrieve.models.dgi import DeepGraphInfomax, infomax_loss
from stretrieve.models.gcn import GraphConvolution, sparse_tensor
from stretrieve.models.joint import JointSettings, fit_joint_space
from stretrieve.models.stgchb import StgchbModel

Floats = npt.NDArray[np.float32]


def principal_directions(values: Floats, n: int) -> Floats:
    """Return the first principal directions ``(width, n)`` of ``(n_samples, width)``.

    Directions beyond the rank are zero; the largest entry of each is positive, so that runs agree.
    """
    centred = values.astype(np.float64) - values.mean(axis=0, dtype=np.float64)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    found = vectors[:, ::-1][:, : min(n, len(values) - 1)]
    rows = np.abs(found).argmax(axis=0)
    found = found * np.sign(found[rows, np.arange(found.shape[1])])
    directions = np.zeros((values.shape[1], n), dtype=np.float32)
    directions[:, : found.shape[1]] = found
    return directions


def start_convolution(convolution: GraphConvolution, gathered: Floats) -> None:
    """Let a graph convolution begin with principal directions of its input, of both signs.

    A pair of signs passes the leaky unit without loss, so that nothing of the leading directions is
    thrown away, as a random matrix would.

    Parameters
    ----------
    convolution
        Changed in place.
    gathered
        ``(n_spots, in_features)`` gathered inputs of all training spots.
    """
    half = convolution.fc.out_features // 2
    directions = torch.from_numpy(principal_directions(gathered, min(half, gathered.shape[1])).T)
    spread = (torch.from_numpy(gathered) @ directions.T).std(dim=0).clamp_min(1e-6)
    directions = directions / spread.max()
    n = len(directions)
    with torch.no_grad():
        convolution.fc.weight[:n] = directions
        convolution.fc.weight[n : 2 * n] = -directions


def pretrain(
    convolution: GraphConvolution,
    inputs: Sequence[Floats],
    graphs: Sequence[sparse.csr_matrix],
    *,
    settings: InfomaxSettings,
    seed: int,
    label: str,
    progress: Progress,
) -> None:
    """Train a graph convolution by Deep Graph Infomax, one full section a step.

    Parameters
    ----------
    convolution
        Changed in place.
    inputs
        One array a section, ``(n_spots, in_features)``, not gathered.
    graphs
        One graph a section.
    settings
        Length and rate.
    seed
        Of the discriminator's start and of the corruptions.
    label
        What is trained, for progress.
    progress
        Told of every step.
    """
    device = convolution.bias.device
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = DeepGraphInfomax(convolution.fc.in_features, convolution.fc.out_features)
    model.gcn = convolution
    model.to(device)
    optimiser = torch.optim.Adam(model.parameters(), lr=settings.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    sections = [
        (torch.from_numpy(x).to(device), sparse_tensor(graph, device=device))
        for x, graph in zip(inputs, graphs, strict=True)
        if len(x) > 1
    ]
    with progress.task(label, settings.epochs * len(sections)) as task:
        for _ in range(settings.epochs):
            for features, graph in sections:
                loss = _step(model, features, graph, optimiser, generator)
                task.advance(note=f"loss {loss:.3f}")


def _step(
    model: DeepGraphInfomax,
    features: Tensor,
    graph: Tensor,
    optimiser: torch.optim.Optimizer,
    generator: torch.Generator,
) -> float:
    permutation = torch.randperm(len(features), generator=generator).to(features.device)
    with torch.enable_grad():
        loss = infomax_loss(model(features, graph, permutation))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call] # torch method
    optimiser.step()
    return loss.item()


@torch.no_grad()
def start_heads(
    model: StgchbModel,
    gathered: Sequence[tuple[Floats, Floats]],
    *,
    groups: Sequence[str],
    settings: JointSettings,
) -> None:
    """Set both heads to the closed-form joint space of the graph convolutions' codes.

    Parameters
    ----------
    model
        Changed in place.
    gathered
        Gathered features and gathered expression components of each training section.
    groups
        Patient of each section.
    settings
        Of the joint space.
    """
    device = model.feature_mean.device
    codes: list[tuple[Floats, Floats]] = []
    for features, expression in gathered:
        image = model.image_gcn(torch.from_numpy(features).to(device))
        spots = model.expression_gcn(torch.from_numpy(expression).to(device))
        codes.append((image.cpu().numpy(), spots.cpu().numpy()))
    middle = np.concatenate([spots for _, spots in codes]).mean(axis=0)
    joint = fit_joint_space(
        [image for image, _ in codes],
        [spots - middle for _, spots in codes],
        groups=groups,
        settings=settings,
        common_scale=True,
    )
    image_map = joint.image_map / joint.feature_scale[:, None]
    _start(model.image_projection, image_map, joint.feature_mean)
    _start(model.expression_projection, joint.expression_map, middle)


def _start(head: nn.Module, linear_map: npt.NDArray[np.floating], middle: npt.ArrayLike) -> None:
    weight = torch.from_numpy(linear_map.T.astype(np.float32).copy())
    bias = torch.from_numpy(-(np.asarray(middle) @ linear_map).astype(np.float32))
    head.start_linear(weight, bias)  # type: ignore[operator] # either kind of head
