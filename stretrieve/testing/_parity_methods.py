"""Recomputation of every array that the published methods computed, with our modules."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from stretrieve.errors import InputError, explain
from stretrieve.indexes import ExactIndex, Metric
from stretrieve.models.dgi import DeepGraphInfomax, infomax_loss
from stretrieve.models.gcn import sparse_tensor
from stretrieve.models.hsic import BottleneckSettings, bottleneck_loss, hsic, normalised_hsic
from stretrieve.models.losses import ContrastiveSettings, TargetSpace, contrastive_loss
from stretrieve.models.m2ost import M2ostRegressor, M2ostSettings
from stretrieve.models.m2ost_tools import from_published as m2ost_from_published
from stretrieve.models.mclstexp import SpotTransformer
from stretrieve.models.mclstexp import from_published as mclstexp_from_published
from stretrieve.models.projection import ProjectionHead
from stretrieve.query.impute import WeightMatrix, impute
from stretrieve.query.weights import bleep_weights, squared_distances, uniform_weights
from stretrieve.spots.graph import GraphSettings

Array = npt.NDArray[Any]

_TEMPERATURES = ("1.0", "0.5", "2.0")


class Arrays:
    """The arrays of one file, with a clear error for one that is missing.

    Parameters
    ----------
    values
        Name to array.
    where
        Name of the file, for messages.
    """

    def __init__(self, values: Mapping[str, Array], *, where: str) -> None:
        self.values, self.where = values, where

    def __getitem__(self, name: str) -> Array:
        self.require(name)
        return self.values[name]

    def tensor(self, name: str) -> Tensor:
        """Return an array as a tensor, float32 where it is a float."""
        array = self[name]
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        return torch.from_numpy(np.array(array, dtype=kind))

    def number(self, name: str) -> float:
        """Return a scalar."""
        return float(self[name])

    def weights(self, prefix: str) -> dict[str, Tensor]:
        """Return all arrays whose names start with ``prefix``, which is cut off."""
        found = {
            n.removeprefix(prefix): self.tensor(n) for n in self.values if n.startswith(prefix)
        }
        if not found:
            self.require(prefix + "*")
        return found

    def require(self, *names: str) -> None:
        """Refuse a file that lacks one of ``names``."""
        for name in names:
            if name not in self.values:
                raise InputError(
                    explain(f"parity file {self.where}", expected=f"an array {name!r}, not there")
                )

    def load(self, module: nn.Module, state: Mapping[str, Tensor]) -> None:
        """Load published weights into a module and switch dropout off.

        Raises
        ------
        InputError
            When a weight is missing, superfluous or of the wrong shape.
        """
        try:
            module.load_state_dict(dict(state))
        except RuntimeError as error:
            raise InputError(explain(f"weights in {self.where}", got=str(error))) from error
        module.eval()


def _head(arrays: Arrays, name: str) -> ProjectionHead:
    state = arrays.weights(f"{name}.")
    dim, inputs = arrays[f"{name}.projection.weight"].shape
    head = ProjectionHead(inputs, dim=dim)
    arrays.load(head, state)
    return head


def bleep(arrays: Arrays) -> dict[str, Array]:
    """Recompute ``bleep.npz``: embeddings, losses, neighbours and the three imputations."""
    image = _head(arrays, "image_projection")(arrays.tensor("image_features"))
    spot = _head(arrays, "spot_projection")(arrays.tensor("spot_features"))
    out: dict[str, Array] = {"image_embedding": image.numpy(), "spot_embedding": spot.numpy()}
    prefix = "loss_T"
    others = [n.removeprefix(prefix) for n in arrays.values if n.startswith(prefix)]
    for text in dict.fromkeys([*_TEMPERATURES, *others]):
        settings = ContrastiveSettings.published(temperature=_temperature(text))
        out[prefix + text] = contrastive_loss(image, spot, settings=settings).numpy()
    return out | _bleep_inference(arrays)


def _temperature(text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise InputError(explain("array loss_T", got=repr(text), expected="a number")) from error


def _bleep_inference(arrays: Arrays) -> dict[str, Array]:
    key, query = (arrays.tensor(name).numpy() for name in ("key", "query"))
    expression = arrays["expression"]
    top_k = arrays["indices_top50"].shape[1]
    indices = ExactIndex(key, metric=Metric.COSINE).search(query, top_k).indices
    distances = squared_distances(query, key[indices])
    schemes = {
        "pred_simple": (indices[:, :1], uniform_weights(indices[:, :1])),
        "pred_average": (indices, uniform_weights(indices)),
        "pred_weighted_average": (indices, bleep_weights(distances, indices)),
    }
    out: dict[str, Array] = {"indices_top50": indices}
    for name, (neighbours, weights) in schemes.items():
        matrix = WeightMatrix.build(neighbours, weights)
        out[name] = impute(matrix.matrix, expression[matrix.used]).mean
    return out


def stgchb(arrays: Arrays) -> dict[str, Array]:
    """Recompute ``stgchb.npz``: graph, infomax, embeddings, HSIC terms and alignment loss."""
    degree = int(np.median(np.asarray(arrays["adjacency"] != 0).sum(axis=1)))
    graph = GraphSettings.published(n_neighbors=degree - 1).build(arrays["xy"].astype(np.float64))
    out: dict[str, Array] = {"adjacency": graph.toarray()}
    embeddings = {}
    for side, inputs in (("spot", "gene_features"), ("image", "image_features")):
        features = arrays.tensor(inputs)
        codes = _stgchb_graph(arrays, side, features, sparse_tensor(graph), out)
        embeddings[side] = _head(arrays, f"{side}_projection")(codes)
        out[f"{side}_embedding"] = embeddings[side].numpy()
        _stgchb_dependence(arrays, side, (features, codes, embeddings[side]), out)
    temperature = arrays.number("temperature")
    settings = ContrastiveSettings(
        tau_logits=temperature,
        tau_target=1 / temperature,
        target_space=TargetSpace.POST_PROJECTION,
        normalize=False,
        stop_gradient=False,
        transpose_target=True,
    )
    loss = contrastive_loss(embeddings["image"], embeddings["spot"], settings=settings)
    return out | {"alignment_loss": loss.numpy()}


def _stgchb_graph(
    arrays: Arrays, side: str, features: Tensor, graph: Tensor, out: dict[str, Array]
) -> Tensor:
    state = arrays.weights(f"{side}_dgi.")
    width, inputs = arrays[f"{side}_dgi.gcn.fc.weight"].shape
    module = DeepGraphInfomax(inputs, width)
    arrays.load(module, state)
    logits = module(features, graph, arrays.tensor("permutation"))
    codes: Tensor = module.gcn(features, graph)
    out[f"{side}_dgi_logits"] = logits[None].numpy()
    out[f"{side}_dgi_loss"] = infomax_loss(logits).numpy()
    out[f"{side}_gcn_embedding"] = codes.numpy()
    return codes


def _stgchb_dependence(
    arrays: Arrays, side: str, values: tuple[Tensor, Tensor, Tensor], out: dict[str, Array]
) -> None:
    x, z, e = values
    sigma, beta = arrays.number("sigma"), arrays.number("beta")
    pairs = {"x_z_spot": (x, z), "e_z_spot": (e, z), "x_z_image": (x, z), "z_e_image": (z, e)}
    for pair, (first, second) in pairs.items():
        if pair.endswith(side):
            out[f"hsic_{pair}"] = hsic(first, second, sigma=sigma).numpy()
            out[f"nhsic_{pair}"] = normalised_hsic(first, second, sigma=sigma).numpy()
    forms = {"image": {"_published": True, "_symmetric": False}, "spot": {"": False}}[side]
    for suffix, mixed in forms.items():
        settings = BottleneckSettings(sigma=sigma, beta=beta, mixed=mixed)
        loss = bottleneck_loss(x, z, e, settings=settings, image_side=side == "image")
        out[f"hsic_loss_{side}{suffix}"] = loss.numpy()


def m2ost(arrays: Arrays) -> dict[str, Array]:
    """Recompute ``m2ost.npz``: the output of the whole network.

    ``heads`` and ``mlp_dim`` are totals over the levels; the sizes themselves are read off the weights.
    """
    arrays.require("heads", "mlp_dim")
    state = arrays.weights("w.")
    n_levels = sum(name.removeprefix("level").isdecimal() for name in arrays.values)
    dim_head = int(arrays["dim_head"])
    block = "w.transformer.layers.0"
    cross = arrays[f"{block}.2.to_q0.weight"].shape[0] if n_levels > 1 else dim_head
    settings = M2ostSettings(
        n_levels=n_levels,
        image_px=int(arrays["image_size"]),
        patch_px=int(arrays["patch_size"]),
        width=int(arrays["dim"]) // max(n_levels, 1),
        depth=int(arrays["depth"]),
        heads=arrays[f"{block}.0.to_out1.0.weight"].shape[1] // dim_head,
        cross_heads=cross // dim_head,
        dim_head=dim_head,
        mlp_hidden=arrays[f"{block}.1.split_mlp.1.weight"].shape[0],
        gate_hidden=arrays[f"{block}.3.net.1.weight"].shape[0],
    )
    model = M2ostRegressor(settings, n_outputs=int(arrays["num_classes"]))
    arrays.load(model, m2ost_from_published(state, settings))
    return {"output": model([arrays.tensor(f"level{i}") for i in range(n_levels)]).numpy()}


def mclstexp(arrays: Arrays) -> dict[str, Array]:
    """Recompute ``mclstexp.npz``: the spots' embeddings and the loss."""
    state = {name: arrays.tensor(name) for name in arrays.values}
    n_positions, width = arrays["x_embed.weight"].shape
    depth = len({n.split(".")[1] for n in arrays.values if n.startswith("spot_encoder.")})
    heads, dim_head = int(arrays["heads"]), int(arrays["dim_head"])
    model = SpotTransformer(
        width, n_positions=n_positions, heads=heads, dim_head=dim_head, depth=depth
    )
    arrays.load(model, mclstexp_from_published(state, depth=depth))
    codes = model(arrays.tensor("expression"), arrays.tensor("position"))
    spot = _head(arrays, "spot_projection")(codes)
    settings = ContrastiveSettings(tau_logits=1.0, tau_target=1.0, normalize=False)
    loss = contrastive_loss(arrays.tensor("image_embedding"), spot, settings=settings)
    return {"spot_embedding": spot.numpy(), "loss": loss.numpy()}


METHODS: Mapping[str, Callable[[Arrays], dict[str, Array]]] = {
    "bleep.npz": bleep,
    "stgchb.npz": stgchb,
    "m2ost.npz": m2ost,
    "mclstexp.npz": mclstexp,
}
"""File to the function that recomputes its outputs."""
