"""Heads that start at, or are, what was found in closed form."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.errors import ShapeError
from stretrieve.models.joint import JointMethod, JointSettings, fit_joint_space
from stretrieve.models.projection import KernelHead, ProjectionHead


def test_linear_start_keeps_cosines_of_the_map():
    generator = torch.Generator().manual_seed(0)
    weight, bias = torch.randn(3, 6, generator=generator), torch.randn(3, generator=generator)
    head = ProjectionHead(6, dim=10).eval()
    head.start_linear(weight, bias)
    x = torch.randn(8, 6, generator=generator)
    linear = torch.nn.functional.normalize(x @ weight.T + bias, dim=1)
    with torch.no_grad():
        embedded = torch.nn.functional.normalize(head(x), dim=1)
    assert torch.allclose(embedded @ embedded.T, linear @ linear.T, atol=1e-4)


def test_linear_start_refuses_a_map_that_does_not_fit():
    head = ProjectionHead(6, dim=5)
    with pytest.raises(ShapeError, match="linear start"):
        head.start_linear(torch.zeros(3, 6), torch.zeros(3))


def test_a_kernel_head_is_the_closed_form_joint_space():
    generator = np.random.default_rng(0)
    places = generator.normal(size=(60, 2))
    genes = np.linalg.norm(places, axis=1, keepdims=True) @ np.ones((1, 5))
    settings = JointSettings(JointMethod.KERNEL, n_components=2, alpha=0.5)
    space = fit_joint_space([places], [genes - genes.mean(axis=0)], groups=["a"], settings=settings)
    head = KernelHead(2, n_landmarks=60, dim=space.dim)
    landmarks, weight = (
        torch.from_numpy(space.kernel.landmarks),
        torch.from_numpy(space.image_map.T),
    )
    head.start(landmarks, space.kernel.width, weight)
    for asked in (places, 20 * places):
        standard = torch.from_numpy((asked - space.feature_mean) / space.feature_scale)
        np.testing.assert_allclose(
            head(standard).detach(), space.embed_features(asked), rtol=1e-5, atol=1e-5
        )
