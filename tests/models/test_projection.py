"""The projection head's linear start."""

from __future__ import annotations

import pytest
import torch

from stretrieve.errors import ShapeError
from stretrieve.models.projection import ProjectionHead


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
