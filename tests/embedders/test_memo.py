"""Features of frozen backbones are computed once, also over processes."""

from __future__ import annotations

import numpy as np
import pytest

from stretrieve.embedders import create_embedder, kept_features
from stretrieve.embedders import memo as module
from stretrieve.embedders.memo import FeatureMemo
from stretrieve.models import colour
from stretrieve.models.encoders import ImageEncoder
from stretrieve.testing.toy import toy_batch, toy_section

CONFIG = {"encoder": {"backbone": "test_resnet"}, "patch_px": 32}


def patches(n, *, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.integers(0, 255, (n, 8, 8, 3), dtype=np.uint8),)


def encode(views):
    encode.seen += len(views[0])
    return views[0].reshape(len(views[0]), -1)[:, :5].astype(np.float32)


@pytest.fixture(autouse=True)
def count():
    encode.seen = 0


def test_a_written_memo_is_taken_up_by_the_next(tmp_path):
    path = tmp_path / "f.npz"
    views = patches(6)
    first = FeatureMemo(path=path)
    expected = first.encode(views, encode)
    first.write()
    again = FeatureMemo(path=path)
    np.testing.assert_array_equal(again.encode(views, encode), expected)
    assert encode.seen == 6


@pytest.mark.parametrize(
    "damage", [lambda data: data[:40], lambda data: b"", lambda data: b"PK no"]
)
def test_a_damaged_file_is_as_good_as_none(tmp_path, damage):
    path = tmp_path / "f.npz"
    memo = FeatureMemo(path=path)
    expected = memo.encode(patches(3), encode)
    memo.write()
    path.write_bytes(damage(path.read_bytes()))
    again = FeatureMemo(path=path)
    assert len(again) == 0
    np.testing.assert_array_equal(again.encode(patches(3), encode), expected)


def test_nothing_new_is_not_written_again(tmp_path):
    memo = FeatureMemo(path=tmp_path / "f.npz")
    memo.write()
    assert not (tmp_path / "f.npz").exists()
    memo.encode(patches(2), encode)
    memo.write()
    stamp = (tmp_path / "f.npz").stat().st_mtime_ns
    memo.encode(patches(2), encode)
    memo.write()
    assert (tmp_path / "f.npz").stat().st_mtime_ns == stamp


def test_kept_features_serve_another_embedder_of_the_same_backbone(tmp_path, monkeypatch):
    embedder = create_embedder("bleep", CONFIG)
    batch = toy_batch(toy_section(embedder.spec, section="s", patient="p", n_spots=5), range(5))
    with kept_features(tmp_path):
        expected = embedder.encode_patches(batch)
    assert len(list(tmp_path.glob("*.npz"))) == 1
    other, seeded = create_embedder("frozen", CONFIG), create_embedder(
        "frozen", {**CONFIG, "encoder": {"backbone": "test_resnet", "seed": 1}}
    )  # fmt: skip
    passes = []
    real = ImageEncoder.encode_views
    monkeypatch.setattr(
        ImageEncoder, "encode_views", lambda self, views: passes.append(1) or real(self, views)
    )
    with kept_features(tmp_path):
        np.testing.assert_array_equal(other.encode_patches(batch), expected)
        assert not passes
        assert np.abs(seeded.encode_patches(batch) - expected).max() > 0
    assert passes
    assert len(list(tmp_path.glob("*.npz"))) == 2


def test_colour_statistics_are_kept_within_the_block_only(tmp_path, monkeypatch):
    embedder = create_embedder("colour")
    batch = toy_batch(toy_section(embedder.spec, section="s", patient="p", n_spots=4), range(4))
    passes, real = [], colour.colour_statistics
    monkeypatch.setattr(
        colour, "colour_statistics", lambda patches: passes.append(len(patches)) or real(patches)
    )
    expected = embedder.encode_patches(batch)
    for _ in range(2):
        with kept_features(tmp_path):
            np.testing.assert_array_equal(embedder.encode_patches(batch), expected)
    assert passes == [4, 4], "once outside, once in the first block"


def test_patches_that_come_once_are_not_remembered():
    embedder = create_embedder("bleep", CONFIG)
    batch = toy_batch(toy_section(embedder.spec, section="s", patient="p", n_spots=5), range(5))
    remembered = embedder._memo()
    remembered.clear()
    once = embedder.encode_once(batch)
    assert len(remembered) == 0
    np.testing.assert_array_equal(once, embedder.encode_patches(batch))
    assert len(remembered) == 5


def test_outside_the_block_nothing_is_written(tmp_path):
    with kept_features(tmp_path):
        assert module.shared_memo("a" * 64) is module.shared_memo("a" * 64)
    module.shared_memo("b" * 64).encode(patches(2), encode)
    with kept_features(tmp_path):
        pass
    assert not list(tmp_path.glob("*.npz"))
