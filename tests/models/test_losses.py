"""The contrastive loss: published arithmetic, corrected form, targets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.models.losses import ContrastiveSettings, TargetSpace, contrastive_loss
from stretrieve.models.projection import ProjectionHead


@pytest.fixture(scope="module")
def parity(shared_data):
    with np.load(shared_data / "parity" / "bleep.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}


def _published_head(parity, prefix):
    weights = {
        name.removeprefix(prefix + "."): torch.from_numpy(array)
        for name, array in parity.items()
        if name.startswith(prefix + ".")
    }
    dim, width = weights["projection.weight"].shape
    head = ProjectionHead(width, dim=dim).eval()
    head.load_state_dict(weights, strict=True)
    return head


@pytest.mark.parametrize(
    ("prefix", "features", "embedding"),
    [
        ("image_projection", "image_features", "image_embedding"),
        ("spot_projection", "spot_features", "spot_embedding"),
    ],
)
def test_projection_head_computes_published_embeddings(parity, prefix, features, embedding):
    head = _published_head(parity, prefix)
    with torch.no_grad():
        got = head(torch.from_numpy(parity[features])).numpy()
    assert np.abs(got - parity[embedding]).max() <= 1e-5


@pytest.mark.parametrize("temperature", [1.0, 0.5, 2.0])
def test_compat_loss_is_the_published_loss(parity, temperature):
    got = contrastive_loss(
        torch.from_numpy(parity["image_embedding"]),
        torch.from_numpy(parity["spot_embedding"]),
        settings=ContrastiveSettings.published(temperature=temperature),
    )
    expected = float(parity[f"loss_T{temperature}"])
    assert float(got) == pytest.approx(expected, rel=1e-5)


def _pair(seed=0, batch=7, dim=5):
    generator = torch.Generator().manual_seed(seed)
    return (torch.randn(batch, dim, generator=generator) for _ in range(2))


def test_corrected_target_rows_sum_to_one_on_both_sides():
    image, expression = _pair()
    published = ContrastiveSettings.published()
    corrected = dataclasses.replace(published, transpose_target=False)
    a = contrastive_loss(image, expression, settings=published)
    b = contrastive_loss(image, expression, settings=corrected)
    assert not torch.isclose(a, b)
    swapped = contrastive_loss(expression, image, settings=corrected)
    assert torch.isclose(b, swapped, atol=1e-6)


def test_identity_target_is_symmetric_cross_entropy():
    image, expression = _pair()
    settings = ContrastiveSettings(tau_logits=0.3, normalize=False)
    logits = expression @ image.T / 0.3
    own = torch.arange(len(image))
    expected = (
        torch.nn.functional.cross_entropy(logits, own)
        + torch.nn.functional.cross_entropy(logits.T, own)
    ) / 2
    assert torch.isclose(contrastive_loss(image, expression, settings=settings), expected)


def test_stop_gradient_changes_the_gradient_but_not_the_value():
    image, expression = _pair()
    grads, values = [], []
    for stop in (True, False):
        leaf = image.clone().requires_grad_()
        settings = ContrastiveSettings(
            target_space=TargetSpace.POST_PROJECTION, tau_target=0.5, stop_gradient=stop
        )
        value = contrastive_loss(leaf, expression, settings=settings)
        value.backward()
        grads.append(leaf.grad)
        values.append(float(value.detach()))
    assert values[0] == pytest.approx(values[1])
    assert not torch.allclose(grads[0], grads[1])


def test_scale_of_embeddings_matters_only_without_normalisation():
    image, expression = _pair()
    normal, raw = ContrastiveSettings(), ContrastiveSettings(normalize=False)
    for settings, same in ((normal, True), (raw, False)):
        a = contrastive_loss(image, expression, settings=settings)
        b = contrastive_loss(3 * image, expression, settings=settings)
        assert torch.isclose(a, b).item() is same


def test_pre_projection_target_follows_the_features():
    image, expression = _pair()
    settings = ContrastiveSettings(target_space=TargetSpace.PRE_PROJECTION)
    features = torch.cat([torch.eye(3), torch.eye(3), torch.eye(3)[:1]])
    loss = contrastive_loss(
        image, expression, settings=settings, image_features=features, expression_features=features
    )
    identity = contrastive_loss(image, expression, settings=ContrastiveSettings())
    assert not torch.isclose(loss, identity)
    with pytest.raises(ShapeError, match="no features"):
        contrastive_loss(image, expression, settings=settings)


def test_refuses_unpaired_embeddings_and_bad_temperatures():
    image, expression = _pair()
    with pytest.raises(ShapeError, match="paired embeddings"):
        contrastive_loss(image[:3], expression, settings=ContrastiveSettings())
    with pytest.raises(ConfigError, match="tau_logits"):
        ContrastiveSettings(tau_logits=0.0)
