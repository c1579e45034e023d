"""Deep Graph Infomax: pre-training of a graph convolution without labels."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812 - the name every torch user reads

from stretrieve.models.gcn import GraphConvolution


class Discriminator(nn.Module):
    """Scores how well a spot fits the summary of its section, ``z W c + b``.

    Parameters
    ----------
    width
        Width of codes and summary.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.f_k = nn.Bilinear(width, width, 1)
        nn.init.xavier_uniform_(self.f_k.weight)
        nn.init.zeros_(self.f_k.bias)

    def forward(self, codes: Tensor, summary: Tensor) -> Tensor:
        """Return logits ``(n,)`` of codes ``(n, width)`` against one summary ``(width,)``."""
        mapped = self.f_k.weight[0] @ summary
        return codes @ mapped + self.f_k.bias


class DeepGraphInfomax(nn.Module):
    """A graph convolution that learns to tell a section from the same section with shuffled spots.

    Parameters
    ----------
    in_features
        Width of the input.
    width
        Width of the codes.

    References
    ----------
    Veličković et al., "Deep Graph Infomax", ICLR 2019; used per modality by ST-GCHB
    (arXiv 2406.12229).
    """

    def __init__(self, in_features: int, width: int) -> None:
        super().__init__()
        self.gcn = GraphConvolution(in_features, width)
        self.disc = Discriminator(width)

    def forward(self, features: Tensor, graph: Tensor, permutation: Tensor) -> Tensor:
        """Return logits ``(2 n,)``: the true spots, then the corrupted ones.

        Parameters
        ----------
        features
            ``(n, in_features)``.
        graph
            ``(n, n)`` sparse or dense.
        permutation
            ``(n,)`` order of rows that makes the corrupted section.
        """
        true = self.gcn(features, graph)
        corrupted = self.gcn(features[permutation], graph)
        summary = torch.sigmoid(true.mean(dim=0))
        return torch.cat([self.disc(true, summary), self.disc(corrupted, summary)])


def infomax_loss(logits: Tensor) -> Tensor:
    """Return the binary cross-entropy of logits ``(2 n,)``, true spots first."""
    labels = torch.zeros_like(logits)
    labels[: len(logits) // 2] = 1
    return F.binary_cross_entropy_with_logits(logits, labels)
