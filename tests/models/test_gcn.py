"""Graph convolution: sparse equals dense, blocks equal the whole, halo is complete."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.errors import ShapeError
from stretrieve.models.dgi import DeepGraphInfomax, infomax_loss
from stretrieve.models.gcn import GraphConvolution, aggregate, sparse_tensor
from stretrieve.spots.graph import GraphSettings


@pytest.fixture(scope="module")
def section() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(3)
    return rng.uniform(0, 1000, (57, 2)), rng.normal(size=(57, 6)).astype(np.float32)


@pytest.mark.parametrize("settings", [GraphSettings(), GraphSettings.published()])
def test_sparse_equals_dense_and_gathered(section, settings: GraphSettings) -> None:
    xy, features = section
    graph = settings.build(xy)
    torch.manual_seed(0)
    layer = GraphConvolution(6, 4)
    layer.bias.data.normal_()
    x = torch.from_numpy(features)
    naive = graph.toarray() @ features @ layer.fc.weight.detach().numpy().T
    naive = naive + layer.bias.detach().numpy()
    naive = np.where(naive > 0, naive, layer.act.weight.item() * naive)
    for out in (
        layer(x, sparse_tensor(graph)),
        layer(x, torch.from_numpy(graph.toarray())),
        layer(torch.from_numpy(aggregate(graph, features))),
    ):
        np.testing.assert_allclose(out.detach(), naive, atol=1e-5)


def test_gathering_does_not_depend_on_the_block(section) -> None:
    xy, features = section
    graph = GraphSettings().build(xy)
    whole = aggregate(graph, features)
    np.testing.assert_array_equal(aggregate(graph, features, block=5), whole)
    np.testing.assert_allclose(whole, graph.toarray() @ features, atol=1e-6)


def test_gradient_through_a_sparse_graph_equals_dense(section) -> None:
    xy, features = section
    graph = GraphSettings.published().build(xy)
    layer = GraphConvolution(6, 4)
    gradients = []
    for tensor in (sparse_tensor(graph), torch.from_numpy(graph.toarray())):
        layer.zero_grad()
        layer(torch.from_numpy(features), tensor).square().sum().backward()
        gradients.append(layer.fc.weight.grad.clone())
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


def test_wrong_sizes_are_refused(section) -> None:
    xy, features = section
    graph = GraphSettings().build(xy)
    with pytest.raises(ShapeError):
        aggregate(graph, features[:-1])
    with pytest.raises(ShapeError):
        GraphConvolution(6, 4)(torch.from_numpy(features[:-1]), sparse_tensor(graph))


def test_infomax_learns_to_tell_a_section_from_its_shuffle() -> None:
    rng = np.random.default_rng(0)
    xy = np.stack(np.meshgrid(np.arange(12.0), np.arange(12.0)), axis=-1).reshape(-1, 2)
    features = torch.from_numpy(rng.normal(size=(len(xy), 6)).astype(np.float32) * 0.3)
    features[:, 0] += torch.from_numpy(np.where(xy[:, 0] < 6, 1.0, -1.0).astype(np.float32))
    graph = sparse_tensor(GraphSettings().build(xy))
    torch.manual_seed(0)
    model = DeepGraphInfomax(6, 8)
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        loss = infomax_loss(model(features, graph, torch.randperm(len(xy))))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert abs(losses[0] - np.log(2)) < 0.2
    assert losses[-1] < 0.6 * losses[0]


def test_infomax_logits_put_true_spots_first() -> None:
    loss = infomax_loss(torch.tensor([9.0, 9.0, -9.0, -9.0]))
    assert loss < 1e-3
    assert infomax_loss(torch.tensor([-9.0, -9.0, 9.0, 9.0])) > 5
