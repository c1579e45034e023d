"""M2OST: the crop, any number of levels, the published size, the cost, what each part must see."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from stretrieve.errors import ConfigError, EmbedderMismatchError, ShapeError
from stretrieve.models.m2ost import M2ost, M2ostRegressor, M2ostSettings
from stretrieve.models.m2ost_blocks import PatchEmbedding, centre_crop
from stretrieve.models.m2ost_tools import (
    count_parameters,
    from_published,
    m2ost_flops,
    published_names,
)

TINY = {"image_px": 32, "patch_px": 16, "width": 8, "depth": 2, "dim_head": 4, "mlp_hidden": 6}


def views(n_levels: int, *, n: int = 2, seed: int = 0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.rand(n, 3, 32, 32, generator=generator) for _ in range(n_levels)]


def tiny(n_levels: int = 3, seed: int = 0, **changes: float) -> M2ost:
    torch.manual_seed(seed)
    return M2ost(M2ostSettings(n_levels=n_levels, **{**TINY, **changes})).eval()


@pytest.mark.parametrize("halvings", [0, 1, 2])
def test_centre_crop_is_centred(halvings: int) -> None:
    image = torch.arange(32.0).expand(1, 1, 32, 32)
    crop = centre_crop(image, halvings)
    assert crop.shape[-1] == 32 >> halvings
    assert crop.mean() == 15.5
    assert crop[0, 0, :, 0].unique().tolist() == [16 - (16 >> halvings)]


def test_published_sizes_and_parameters() -> None:
    settings = M2ostSettings()
    assert settings.n_tokens == (197, 393, 589)
    assert settings.dim == 576
    model = M2ostRegressor(settings, n_outputs=250)
    unused_norms = settings.depth * 2 * settings.dim
    assert count_parameters(model) + unused_norms == 7_043_466
    assert f"{count_parameters(model) / 1e6:.2f}" == "7.04"


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_any_number_of_levels(n_levels: int) -> None:
    out = tiny(n_levels)(views(n_levels))
    assert out.shape == (2, 8 * n_levels)
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("n_levels", [1, 2, 3, 4])
def test_flops_agree_with_torch(n_levels: int) -> None:
    settings = M2ostSettings(n_levels=n_levels, heads=2, cross_heads=3, **TINY)
    model = M2ostRegressor(settings, n_outputs=5)
    with FlopCounterMode(display=False) as counter:
        model(views(n_levels, n=1))
    assert m2ost_flops(settings, n_outputs=5) == counter.get_total_flops()


def test_every_level_reaches_every_other() -> None:
    model, seen = tiny(depth=1), views(3)
    before = model(seen)
    for level in range(3):
        changed = [v.clone() for v in seen]
        changed[level] = 1 - changed[level]
        moved = (model(changed) - before).abs().reshape(2, 3, 8).amax(dim=(0, 2))
        assert (moved > 1e-6).all(), f"level {level} does not reach all of {moved}"


def test_first_level_is_seen_whole_and_others_finer_at_the_centre() -> None:
    model = tiny()
    tokens = [model._tokens(i, v) for i, v in enumerate(views(3))]
    assert [t.shape[1] for t in tokens] == [5, 9, 13]
    seen = views(3)
    rim = [v.clone() for v in seen]
    rim[2][..., :12, :12] = 0
    after = model._tokens(2, rim[2])
    same = torch.isclose(after, tokens[2]).all(dim=-1).all(dim=0)
    assert same[1:5].all(), "the finest squares only see 3/8 to 5/8 of the side"
    assert not same[5] and not same[9]
    assert same[6:9].all() and same[10:].all()


def test_squares_are_cut_row_by_row() -> None:
    grain = PatchEmbedding(2, hidden=4, width=3)
    image = torch.zeros(1, 3, 4, 4)
    base = grain(image)
    image[0, 0, 0, 3] = 1.0
    moved = (grain(image) - base).abs().sum(dim=-1)[0]
    assert moved[1] > 0
    assert moved[[0, 2, 3]].sum() == 0


def test_batch_size_does_not_matter() -> None:
    model, seen = tiny(), views(3, n=5)
    together = model(seen)
    alone = torch.cat([model([v[i : i + 1] for v in seen]) for i in range(5)])
    np.testing.assert_allclose(alone.detach(), together.detach(), atol=1e-5)


def test_gradients_reach_every_weight() -> None:
    model = M2ostRegressor(M2ostSettings(**TINY), n_outputs=4)
    model(views(3)).square().sum().backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == []


def test_random_mask_acts_in_training_only_and_follows_the_seed() -> None:
    masked, whole = tiny(mask=0.5), tiny()
    assert torch.equal(masked(views(3)), whole(views(3)))
    masked.train()
    outputs = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        outputs.append(masked(views(3)).detach())
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])
    attention = masked.blocks[0].intra
    seen = attention._draw(torch.zeros(4, 50, 8))
    assert seen.diagonal(dim1=2, dim2=3).all()
    assert 0.4 < seen.float().mean() < 0.62


def test_published_names_cover_all_weights_once() -> None:
    for n_levels in (1, 3, 4):
        settings = M2ostSettings(n_levels=n_levels, **TINY)
        names = published_names(settings)
        assert names.keys() == M2ostRegressor(settings, n_outputs=2).state_dict().keys()
        assert len(set(names.values())) == len(names)


def test_missing_weight_is_named() -> None:
    settings = M2ostSettings(**TINY)
    state = dict.fromkeys(published_names(settings).values(), torch.zeros(1))
    del state["cls_token"]
    with pytest.raises(EmbedderMismatchError, match="cls_token"):
        from_published(state, settings)


@pytest.mark.parametrize(
    "changes",
    [
        {"n_levels": 0},
        {"n_levels": 5},
        {"patch_px": 12, "n_levels": 4},
        {"image_px": 30},
        {"depth": 0},
        {"gate_hidden": -1},
        {"mask": 1.0},
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        M2ostSettings(**{**TINY, **changes})


def test_wrong_views_are_refused() -> None:
    with pytest.raises(ShapeError, match="M2OST views"):
        tiny()(views(2))
    with pytest.raises(ShapeError):
        tiny()([torch.zeros(1, 3, 16, 16)] * 3)
