"""Encoders: weights policies, preprocessing, refusal of what does not fit."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from stretrieve.errors import (
    ConfigError,
    EmbedderMismatchError,
    InputError,
    InputNotFoundError,
    ShapeError,
)
from stretrieve.models.colour import STATISTICS, colour_statistics
from stretrieve.models.encoders import (
    EncoderSettings,
    Pooling,
    check_same,
    create_encoder,
    restore_encoder,
)
from stretrieve.models.stages import trained_parameters
from stretrieve.models.weights import state_digest

TINY = "test_resnet"


def _patches(n=5, px=32, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (n, px, px, 3), dtype=np.uint8)


def _weights_file(path, *, seed=3, drop=None, **kwargs):
    encoder = create_encoder(EncoderSettings(backbone=TINY, seed=seed, **kwargs))
    state = {k: v.contiguous() for k, v in encoder.network.state_dict().items() if k != drop}
    save_file(state, path)
    return encoder


def test_random_weights_follow_the_seed_and_leave_torch_alone():
    torch.manual_seed(1)
    expected = torch.rand(2)
    torch.manual_seed(1)
    one, same = (create_encoder(EncoderSettings(backbone=TINY)) for _ in range(2))
    other = create_encoder(EncoderSettings(backbone=TINY, seed=1))
    assert torch.equal(torch.rand(2), expected)
    assert one.describe() == same.describe()
    assert one.describe().sha256 != other.describe().sha256


def test_file_gives_the_features_of_its_network(tmp_path):
    saved = _weights_file(tmp_path / "tower.safetensors")
    settings = EncoderSettings(backbone=TINY, weights=str(tmp_path / "tower.safetensors"))
    loaded = create_encoder(settings)
    np.testing.assert_array_equal(loaded.encode(_patches()), saved.encode(_patches()))
    assert loaded.describe().sha256 == saved.describe().sha256
    assert loaded.describe().source.endswith("tower.safetensors")


def test_the_processor_takes_a_few_patches_at_a_time():
    encoder = create_encoder(EncoderSettings(backbone=TINY))
    taken = []
    encoder.register_forward_pre_hook(lambda _, inputs: taken.append(len(inputs[0])))
    patches = _patches(40)
    features = encoder.encode(patches)
    assert taken == [16, 16, 8]
    with torch.no_grad():
        at_once = encoder(torch.from_numpy(patches)).numpy()
    np.testing.assert_allclose(features, at_once, rtol=1e-5, atol=1e-6)


def test_half_precision_file_becomes_float32(tmp_path):
    saved = create_encoder(EncoderSettings(backbone=TINY, seed=3))
    state = saved.network.state_dict()
    halves = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    save_file({k: v.contiguous() for k, v in halves.items()}, tmp_path / "half.safetensors")
    path = str(tmp_path / "half.safetensors")
    loaded = create_encoder(EncoderSettings(backbone=TINY, weights=path))
    assert {p.dtype for p in loaded.network.parameters()} == {torch.float32}
    np.testing.assert_allclose(
        loaded.encode(_patches()), saved.encode(_patches()), rtol=0.02, atol=0.02
    )


def test_folder_says_its_architecture(tmp_path):
    saved = _weights_file(tmp_path / "model.safetensors")
    config = {"architecture": TINY, "pretrained_cfg": {"mean": [0.1] * 3, "std": [0.2] * 3}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    loaded = create_encoder(EncoderSettings(backbone="auto", weights=str(tmp_path)))
    assert loaded.describe().architecture == TINY
    assert loaded.describe().mean == pytest.approx((0.1, 0.1, 0.1))
    assert loaded.describe().sha256 == saved.describe().sha256
    with pytest.raises(ConfigError, match="backbone"):
        create_encoder(EncoderSettings(backbone="resnet18", weights=str(tmp_path)))


def test_missing_tensor_is_refused_not_left_random(tmp_path):
    path = tmp_path / "part.safetensors"
    _weights_file(path, drop="layer3.0.conv1.weight")
    with pytest.raises(EmbedderMismatchError, match=r"part\.safetensors"):
        create_encoder(EncoderSettings(backbone=TINY, weights=str(path)))


def test_weights_of_another_architecture_are_refused(tmp_path):
    path = tmp_path / "tower.safetensors"
    _weights_file(path)
    with pytest.raises(EmbedderMismatchError, match="weights of resnet18"):
        create_encoder(EncoderSettings(backbone="resnet18", weights=str(path)))


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"backbone": "resnet19x"}, ConfigError, "backbone"),
        ({"backbone": TINY, "model_kwargs": {"no_such": 1}}, ConfigError, "no_such"),
        ({"backbone": TINY, "weights": "nowhere.safetensors"}, InputNotFoundError, "nowhere"),
        ({"backbone": TINY, "weights": "hf-hub:one-part"}, ConfigError, "hub id"),
        ({"backbone": "open_clip:NoSuch"}, ConfigError, "open_clip"),
        ({"backbone": "open_clip:RN50", "weights": "pretrained"}, ConfigError, "TAG"),
        ({"backbone": TINY, "pooling": Pooling.CLS_MEAN}, ConfigError, "class token"),
    ],
    ids=str,
)
def test_bad_settings_are_one_clear_line(settings, error, message):
    with pytest.raises(error, match=message) as caught:
        create_encoder(EncoderSettings(**settings))
    assert "\n" not in str(caught.value)


def test_only_safetensors_are_read(tmp_path):
    path = tmp_path / "weights.bin"
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(InputError, match="safetensors"):
        create_encoder(EncoderSettings(backbone=TINY, weights=str(path)))
    with pytest.raises(InputError, match="0 safetensors files"):
        create_encoder(EncoderSettings(backbone=TINY, weights=str(tmp_path)))
    path = path.rename(tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="safetensors"):
        create_encoder(EncoderSettings(backbone=TINY, weights=str(path)))


def test_preprocessing_is_resized_and_normalised():
    settings = EncoderSettings(backbone=TINY, image_px=16, mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder = create_encoder(settings)
    white = torch.full((2, 32, 32, 3), 255, dtype=torch.uint8)
    pixels = encoder.prepare(white)
    assert pixels.shape == (2, 3, 16, 16)
    assert torch.allclose(pixels, torch.full_like(pixels, 2.0))
    fixed = create_encoder(EncoderSettings(backbone="test_vit"))
    assert fixed.describe().image_px == 160


def test_class_token_beside_the_mean_of_the_patches():
    plain = create_encoder(EncoderSettings(backbone="test_vit"))
    both = create_encoder(EncoderSettings(backbone="test_vit", pooling=Pooling.CLS_MEAN))
    assert both.dim == 2 * plain.dim
    assert both.encode(_patches(2)).shape == (2, both.dim)


def test_restored_encoder_is_the_same_or_refused():
    encoder = create_encoder(EncoderSettings(backbone=TINY, mean=(0.3,) * 3, seed=4))
    state = {k: v.clone() for k, v in encoder.network.state_dict().items()}
    restored = restore_encoder(encoder.describe(), state)
    assert restored.describe() == encoder.describe()
    np.testing.assert_array_equal(restored.encode(_patches()), encoder.encode(_patches()))
    state["conv1.0.weight"] = state["conv1.0.weight"] + 1e-3
    with pytest.raises(EmbedderMismatchError, match="sha256"):
        restore_encoder(encoder.describe(), state)
    del state["conv1.0.weight"]
    with pytest.raises(EmbedderMismatchError, match="stored weights"):
        restore_encoder(encoder.describe(), state)


def test_colour_statistics_stand_beside_the_towers_features():
    settings = EncoderSettings(backbone=TINY, statistics=True)
    plain, both = create_encoder(dataclasses.replace(settings, statistics=False)), create_encoder(
        settings
    )  # fmt: skip
    patches = _patches()
    features = both.encode(patches)
    assert both.dim == features.shape[1] == plain.dim + len(STATISTICS)
    np.testing.assert_array_equal(features[:, : plain.dim], plain.encode(patches))
    np.testing.assert_array_equal(features[:, plain.dim :], colour_statistics(patches))
    restored = restore_encoder(both.describe(), both.network.state_dict())
    np.testing.assert_array_equal(restored.encode(patches), features)
    with pytest.raises(EmbedderMismatchError, match="statistics of the image encoder"):
        check_same(plain.describe(), both.describe())


def test_statistics_of_large_patches_are_those_of_small_ones():
    large = np.repeat(np.repeat(_patches(2, px=64), 2, axis=1), 2, axis=2)
    encoder = create_encoder(EncoderSettings(backbone=TINY, statistics=True))
    found = encoder.encode(large)[:, -len(STATISTICS) :]
    np.testing.assert_array_equal(found, colour_statistics(_patches(2, px=64)))


def test_other_preprocessing_is_a_mismatch():
    described = create_encoder(EncoderSettings(backbone=TINY)).describe()
    check_same(described, described)
    with pytest.raises(EmbedderMismatchError, match="mean"):
        check_same(dataclasses.replace(described, mean=(0.0, 0.0, 0.0)), described)


def test_digest_sees_names_shapes_and_values():
    base = {"a": torch.arange(4.0)}
    others = ({"b": base["a"]}, {"a": base["a"].view(2, 2)}, {"a": base["a"] + 1e-6})
    digests = {state_digest(state) for state in (base, *others)}
    assert len(digests) == 4
    assert state_digest({"x": torch.zeros(1), **base}) == state_digest(
        {**base, "x": torch.zeros(1)}
    )


def test_refuses_what_is_not_patches():
    encoder = create_encoder(EncoderSettings(backbone=TINY))
    with pytest.raises(ShapeError, match="patches"):
        encoder.encode(_patches().astype(np.float32))


def test_stages_are_counted_from_the_output():
    network = create_encoder(EncoderSettings(backbone=TINY)).network
    assert trained_parameters(network, 0) == []
    last = {id(p) for p in trained_parameters(network, 1)}
    names = {name for name, p in network.named_parameters() if id(p) in last}
    assert names
    assert all(name.startswith("layer4") for name in names)
    assert len(trained_parameters(network, -1)) == len(list(network.parameters()))
    with pytest.raises(ConfigError, match="backbone_stages"):
        trained_parameters(network, 99)


def test_real_pretrained_weights_give_their_known_features(shared_data):
    """MobileNetV2 sees a natural statistic that random weights do not: these are its own numbers."""
    settings = EncoderSettings(
        backbone="mobilenetv2_100",
        weights=str(shared_data / "weights" / "mobilenetv2_imagenet.safetensors"),
        mean=(0.5,) * 3,
        std=(0.5,) * 3,
        model_kwargs={"pad_type": "same"},
    )
    encoder = create_encoder(settings)
    assert encoder.dim == 1280
    described = encoder.describe()
    assert described.sha256 == "a8341b2790006c283141e70354f44cb9293ec58fba6735ba317775b999be5fc8"
    random = create_encoder(dataclasses.replace(settings, weights="none"))
    with pytest.raises(EmbedderMismatchError, match="sha256"):
        check_same(random.describe(), described)


@pytest.mark.network
def test_pretrained_weights_come_as_safetensors():
    encoder = create_encoder(EncoderSettings(backbone="test_resnet", weights="pretrained"))
    assert encoder.describe().revision
