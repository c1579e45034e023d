"""The spot transformer: attention over a section, positions, blocks."""

from __future__ import annotations

import pytest
import torch

from stretrieve.errors import EmbedderMismatchError, ShapeError
from stretrieve.models import mclstexp
from stretrieve.models.mclstexp import SpotTransformer, from_published, published_names


def model(seed: int = 0) -> SpotTransformer:
    torch.manual_seed(seed)
    return SpotTransformer(6, n_positions=16, heads=2, dim_head=4).eval()


def section(n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    positions = torch.randint(16, (n, 2), generator=generator)
    return torch.randn(n, 6, generator=generator), positions


def test_order_of_spots_does_not_matter() -> None:
    expression, positions = section()
    order = torch.randperm(9, generator=torch.Generator().manual_seed(2))
    moved = model()(expression[order], positions[order])
    torch.testing.assert_close(moved, model()(expression, positions)[order], rtol=1e-5, atol=1e-5)


def test_every_spot_sees_every_other() -> None:
    expression, positions = section()
    before = model()(expression, positions)
    expression[4, 0] += 3
    moved = (model()(expression, positions) - before).abs().amax(dim=1)
    assert (moved > 1e-5).all()


@pytest.mark.parametrize(("axis", "table"), [(0, "x_embed"), (1, "y_embed")])
def test_columns_and_rows_have_tables_of_their_own(axis: int, table: str) -> None:
    expression, positions = section()
    network = model()
    before = network(expression, positions)
    positions[3, axis] = (positions[3, axis] + 1) % 16
    after = network(expression, positions)
    assert (after[3] - before[3]).abs().max() > 0.1
    after[3].sum().backward()
    used = getattr(network, table).weight.grad.abs().sum(dim=1)
    assert used[positions[3, axis]] > 1e-3
    assert set(used.nonzero().ravel().tolist()) == set(positions[:, axis].tolist())


def test_blocks_of_queries_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = model()(*section(11))
    monkeypatch.setattr(mclstexp, "_QUERY_BLOCK", 3)
    torch.testing.assert_close(model()(*section(11)), whole, rtol=1e-5, atol=1e-5)


def test_positions_outside_the_tables_are_refused() -> None:
    expression, positions = section()
    positions[0, 1] = 16
    with pytest.raises(ShapeError, match="0 to 15"):
        model()(expression, positions)
    with pytest.raises(ShapeError, match="expression and positions"):
        model()(expression[:, :5], positions)


def test_published_names_cover_all_weights_once() -> None:
    names = published_names(2)
    assert names.keys() == model().state_dict().keys()
    assert len(set(names.values())) == len(names)
    state = {theirs: model().state_dict()[ours] for ours, theirs in names.items()}
    model(1).load_state_dict(from_published(state, depth=2))
    del state["y_embed.weight"]
    with pytest.raises(EmbedderMismatchError, match="y_embed"):
        from_published(state, depth=2)
