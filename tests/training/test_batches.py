"""Every spot once an epoch, augmentation by spot alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from stretrieve.embedders.trainable import BatchUnit
from stretrieve.errors import ConfigError
from stretrieve.training.augment import augment_views
from stretrieve.training.batches import plan_epoch
from stretrieve.training.parallel import World
from stretrieve.training.settings import AugmentSettings


@pytest.mark.parametrize("unit", list(BatchUnit))
def test_an_epoch_sees_every_spot_once(unit):
    sizes = [10, 0, 25, 3]
    batches = plan_epoch(sizes, unit=unit, batch_size=8, seed=1, epoch=2)
    seen = np.concatenate(batches)
    assert len(np.unique(seen, axis=0)) == len(seen) == sum(sizes)
    assert max(len(b) for b in batches) < 2 * 8
    if unit is BatchUnit.SECTION:
        assert all(len(np.unique(b[:, 0])) == 1 for b in batches)


def test_order_follows_seed_and_epoch():
    def plan(seed, epoch):
        return np.concatenate(
            plan_epoch([30], unit=BatchUnit.SPOT, batch_size=8, seed=seed, epoch=epoch)
        )

    assert np.array_equal(plan(1, 1), plan(1, 1))
    assert not np.array_equal(plan(1, 1), plan(1, 2))
    assert not np.array_equal(plan(1, 1), plan(2, 1))


def test_processes_share_a_batch_without_gap_or_overlap():
    spots = plan_epoch([11], unit=BatchUnit.SPOT, batch_size=11, seed=0, epoch=1)[0]
    shares = [World(rank, 3).share(spots) for rank in range(3)]
    assert np.array_equal(np.concatenate(shares), spots)
    with pytest.raises(ConfigError, match="batch_size"):
        World(0, 12).share(spots)


def _augment(views, rows, **changes):
    rows = np.asarray(rows)
    return augment_views(
        views,
        settings=AugmentSettings(**changes),
        seed=5,
        epoch=1,
        sections=np.zeros_like(rows),
        rows=rows,
    )


def _patches(n, px=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(40, 220, (n, px, px, 3), generator=generator, dtype=torch.uint8)


def test_augmentation_depends_on_the_spot_only():
    views = _patches(6)
    whole = _augment([views], range(6))[0]
    for i in (0, 3, 5):
        assert torch.equal(_augment([views[i : i + 1]], [i])[0][0], whole[i])
    assert not torch.equal(whole, views)


def test_all_views_of_a_spot_turn_together():
    # mark one corner in each view: after turning, the mark is in the same corner of both
    views = []
    for px in (8, 12):
        view = torch.full((32, px, px, 3), 200, dtype=torch.uint8)
        view[:, 0, 1] = 0
        views.append(view)
    small, large = _augment(views, range(32), stain=0.0)
    positions = set()
    for a, b in zip(small, large, strict=True):
        row, column = (a[..., 0] == 0).nonzero()[0].tolist()
        at = tuple("low" if v < 4 else "high" for v in (row, column))
        row, column = (b[..., 0] == 0).nonzero()[0].tolist()
        assert at == tuple("low" if v < 6 else "high" for v in (row, column))
        positions.add(at)
    assert len(positions) == 4


def test_stain_shifts_both_views_alike_and_can_be_off():
    patch = torch.tensor([120, 60, 150], dtype=torch.uint8).expand(4, 8, 8, 3)
    a, b = _augment([patch, patch], range(4), flips=False, stain=0.2)
    assert torch.equal(a, b)
    assert not torch.equal(a[0], a[1])
    same = _augment([patch], range(4), flips=False, stain=0.0)[0]
    assert torch.equal(same, patch)
