"""HSIC against its definition, its known values, and what the bottleneck rewards."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.models.hsic import (
    BottleneckSettings,
    bottleneck_loss,
    gaussian_kernel,
    hsic,
    normalised_hsic,
)


def naive_hsic(x: np.ndarray, y: np.ndarray, sigma: float) -> float:
    n = len(x)
    kernels = []
    for samples in (x, y):
        kernel = np.empty((n, n))
        for i in range(n):
            for j in range(n):
                kernel[i, j] = np.exp(-((samples[i] - samples[j]) ** 2).sum() / sigma**2)
        kernels.append(kernel)
    centre = np.eye(n) - np.ones((n, n)) / n
    return float(np.trace(kernels[0] @ centre @ kernels[1] @ centre) / (n - 1) ** 2)


@pytest.fixture
def samples() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(24, 5, generator=generator, dtype=torch.float64)
    return x, x[:, :2] ** 2 + 0.1 * torch.randn(24, 2, generator=generator, dtype=torch.float64)


def test_hsic_equals_its_definition(samples) -> None:
    x, y = samples
    naive = naive_hsic(x.numpy(), y.numpy(), 2.0)
    assert hsic(x, y, sigma=2.0).item() == pytest.approx(naive, rel=1e-10)
    assert hsic(x.float(), y.float(), sigma=2.0).item() == pytest.approx(naive, rel=1e-5)


def test_normalised_hsic_equals_its_definition(samples) -> None:
    x, y = (v.numpy() for v in samples)
    naive = naive_hsic(x, y, 3.0) / np.sqrt(
        (1 + naive_hsic(x, x, 3.0)) * (1 + naive_hsic(y, y, 3.0))
    )
    assert normalised_hsic(*samples, sigma=3.0).item() == pytest.approx(naive, abs=1e-12)


def test_hsic_is_symmetric_and_zero_for_a_constant(samples) -> None:
    x, y = samples
    assert hsic(x, y, sigma=2.0).item() == pytest.approx(hsic(y, x, sigma=2.0).item())
    assert hsic(x, torch.ones_like(y), sigma=2.0).abs() < 1e-12


def test_dependence_exceeds_shuffled_pairs(samples) -> None:
    x, y = samples
    shuffled = [hsic(x, y[torch.randperm(24)], sigma=0.0).item() for _ in range(20)]
    assert hsic(x, y, sigma=0.0).item() > max(shuffled)


def test_median_bandwidth_does_not_depend_on_the_scale(samples) -> None:
    x, _ = samples
    torch.testing.assert_close(gaussian_kernel(x * 1000, sigma=0.0), gaussian_kernel(x, sigma=0.0))
    upper = torch.triu_indices(24, 24, offset=1)
    kernel = gaussian_kernel(x, sigma=0.0)[upper[0], upper[1]]
    assert kernel.median().item() == pytest.approx(np.exp(-1), rel=0.02)


@pytest.mark.parametrize(("mixed", "image_side"), [(False, True), (True, True), (True, False)])
def test_forms_of_the_bottleneck(samples, mixed: bool, image_side: bool) -> None:
    x, z = samples
    e = z[:, :1]
    settings = BottleneckSettings(sigma=2.0, beta=7.0, mixed=mixed)
    loss = bottleneck_loss(x, z, e, settings=settings, image_side=image_side)
    kept = hsic if mixed and image_side else normalised_hsic
    expected = normalised_hsic(x, z, sigma=2.0) - 7 * kept(e, z, sigma=2.0)
    assert loss.item() == pytest.approx(expected.item())


def test_gradients_are_finite_for_equal_samples() -> None:
    x = torch.ones(5, 3, requires_grad=True)
    normalised_hsic(x, x * 2, sigma=0.0).backward()
    assert torch.isfinite(x.grad).all()


def test_faulty_input_is_refused(samples) -> None:
    x, y = samples
    with pytest.raises(ShapeError):
        hsic(x, y[:-1], sigma=1.0)
    with pytest.raises(ShapeError):
        normalised_hsic(x[:1], y[:1], sigma=1.0)
    with pytest.raises(ConfigError):
        BottleneckSettings(sigma=-1.0)
