"""One graph convolution over spots, sparse, and its form for slides of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from stretrieve.errors import ShapeError, explain

_BLOCK = 4096

Prepare = Callable[[npt.NDArray[np.float32]], npt.NDArray[np.float32]]


def sparse_tensor(graph: sparse.csr_matrix, *, device: torch.device | str = "cpu") -> Tensor:
    """Return a graph as a sparse float32 tensor for :class:`GraphConvolution`.

    Parameters
    ----------
    graph
        ``(n, n)``; row *i* holds what spot *i* gathers from.
    device
        Where the tensor lives.
    """
    edges = sparse.csr_matrix(graph)
    edges.sort_indices()
    coo = edges.tocoo()
    indices = torch.from_numpy(np.stack([coo.row, coo.col]).astype(np.int64))
    values = torch.from_numpy(coo.data.astype(np.float32))
    tensor = torch.sparse_coo_tensor(
        indices, values, coo.shape, is_coalesced=True, check_invariants=True
    )
    return tensor.to(device)


def gather_blocks(
    graph: sparse.csr_matrix,
    features: npt.NDArray[np.float32],
    *,
    block: int = _BLOCK,
    prepare: Prepare | None = None,
) -> Iterator[tuple[slice, npt.NDArray[np.float32]]]:
    """Yield ``A X`` block by block, so that memory does not grow with the number of spots.

    Parameters
    ----------
    graph
        ``(n, n)``.
    features
        ``(n, width)``; may be memory-mapped.
    block
        Rows gathered at a time; their neighbours outside of the block are looked up as well.
    prepare
        Applied to the rows of features in use.

    Yields
    ------
    tuple
        Which rows, and what they gather, ``(n_rows, width)`` float32.
    """
    _check(graph.shape, features.shape)
    for start in range(0, len(features), block):
        part = slice(start, min(start + block, len(features)))
        rows = graph[part]
        near = np.unique(rows.indices)
        values = features[near] if prepare is None else prepare(features[near])
        gathered = rows[:, near].astype(np.float64) @ values.astype(np.float64)
        yield part, np.asarray(gathered, dtype=np.float32)


def aggregate(
    graph: sparse.csr_matrix, features: npt.NDArray[np.float32], *, block: int = _BLOCK
) -> npt.NDArray[np.float32]:
    """Return ``A X``: what each spot gathers of its neighbours' features.

    A single convolution is ``act((A X) W + b)``, so that features gathered once serve every later
    mini-batch as plain rows.

    Parameters
    ----------
    graph
        ``(n, n)``.
    features
        ``(n, width)``; may be memory-mapped.
    block
        Rows gathered at a time.

    Returns
    -------
    ndarray
        ``(n, width)`` float32.
    """
    _check(graph.shape, features.shape)
    gathered = np.empty(features.shape, dtype=np.float32)
    for rows, values in gather_blocks(graph, features, block=block):
        gathered[rows] = values
    return gathered


def _check(graph: tuple[int, int], features: tuple[int, ...]) -> None:
    if len(features) != 2 or graph != (features[0], features[0]):
        raise ShapeError(
            explain("graph and features", got=f"{graph} and {features}", expected="(n, n), (n, ·)")
        )


class GraphConvolution(nn.Module):
    """``PReLU(A X W + b)``. Submodules carry the names of the published ``state_dict``.

    Parameters
    ----------
    in_features
        Width of the input.
    out_features
        Width of the output.

    References
    ----------
    Kipf and Welling, "Semi-supervised classification with graph convolutional networks", ICLR 2017;
    in the form of Veličković et al., "Deep Graph Infomax", ICLR 2019.
    """

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__()
        self.fc = nn.Linear(in_features, out_features, bias=False)
        self.bias = nn.Parameter(torch.zeros(out_features))
        self.act = nn.PReLU()
        nn.init.xavier_uniform_(self.fc.weight)

    def forward(self, features: Tensor, graph: Tensor | None = None) -> Tensor:
        """Return ``(n, out_features)``.

        Parameters
        ----------
        features
            ``(n, in_features)``; without a graph, features that are gathered already
            (:func:`aggregate`), of which any rows may be given.
        graph
            ``(n, n)`` sparse or dense.
        """
        mapped: Tensor = self.fc(features)
        if graph is not None:
            _check((graph.shape[0], graph.shape[1]), tuple(features.shape))
            mapped = torch.sparse.mm(graph, mapped) if graph.is_sparse else graph @ mapped
        out: Tensor = self.act(mapped + self.bias)
        return out
