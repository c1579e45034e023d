"""Closed-form joint spaces find the shared signal, and only it."""

from __future__ import annotations

import numpy as np
import pytest

from stretrieve.errors import ConfigError, ShapeError
from stretrieve.models.joint import JointMethod, JointSettings, JointSpace, fit_joint_space


def _sections(n=120, n_sections=3, shared=3, seed=0):
    generator = np.random.default_rng(seed)
    to_image, to_genes = generator.normal(size=(shared, 20)), generator.normal(size=(shared, 30))
    features, expression = [], []
    for _ in range(n_sections):
        signal = generator.normal(size=(n, shared))
        features.append(signal @ to_image + 0.5 * generator.normal(size=(n, 20)))
        genes = signal @ to_genes + 0.5 * generator.normal(size=(n, 30))
        expression.append(genes - genes.mean(axis=0))
    return features, expression


def _recall(space, features, expression, k=5):
    image, spots = space.embed_features(features), space.embed_expression(expression)
    image /= np.linalg.norm(image, axis=1, keepdims=True)
    spots /= np.linalg.norm(spots, axis=1, keepdims=True)
    similarity = image @ spots.T
    return float(((similarity > np.diag(similarity)[:, None]).sum(axis=1) < k).mean())


@pytest.mark.parametrize("method", list(JointMethod))
@pytest.mark.parametrize("alpha", [10.0, None])
def test_held_out_spots_find_their_expression(method, alpha):
    features, expression = _sections()
    settings = JointSettings(method, n_components=3, alpha=alpha)
    space = fit_joint_space(features[:2], expression[:2], groups=["a", "b"], settings=settings)
    assert space.dim == 3
    assert _recall(space, features[2], expression[2]) > 0.5
    shuffled = expression[2][np.random.default_rng(1).permutation(120)]
    assert _recall(space, features[2], shuffled) < 0.12


def test_ridge_is_ridge():
    features, expression = _sections(n_sections=1)
    settings = JointSettings(n_components=4, alpha=7.0)
    space = fit_joint_space(features, expression, groups=["a"], settings=settings)
    x = (features[0] - features[0].mean(axis=0)) / features[0].std(axis=0)
    directions = np.linalg.svd(expression[0], full_matrices=False)[2][:4].T
    signs = np.sign((directions * space.expression_map).sum(axis=0))
    np.testing.assert_allclose(space.expression_map, directions * signs, atol=1e-8)
    expected = np.linalg.solve(x.T @ x + 7.0 * np.eye(20), x.T @ (expression[0] @ directions))
    np.testing.assert_allclose(space.image_map, expected * signs, atol=1e-8)


def test_more_features_than_spots_is_the_same_ridge():
    features, expression = _sections(n=12, n_sections=1)
    settings = JointSettings(n_components=2, alpha=3.0)
    space = fit_joint_space(features, expression, groups=["a"], settings=settings)
    x = (features[0] - features[0].mean(axis=0)) / features[0].std(axis=0)
    scores = expression[0] @ space.expression_map
    expected = np.linalg.solve(x.T @ x + 3.0 * np.eye(20), x.T @ scores)
    np.testing.assert_allclose(space.image_map, expected, atol=1e-8)


def test_noise_wants_a_larger_penalty_than_signal():
    features, expression = _sections()
    generator = np.random.default_rng(3)
    noise = [generator.normal(size=f.shape) for f in features]
    groups = ["a", "b", "c"]
    alphas = [
        fit_joint_space(f, expression, groups=groups, settings=JointSettings()).alpha
        for f in (features, noise)
    ]
    assert alphas[0] < 300
    assert alphas[0] <= alphas[1]


def _rings(n=150, n_sections=3, seed=0):
    """Expression follows the distance from the middle, which no linear map of features gives."""
    generator = np.random.default_rng(seed)
    features, expression = [], []
    for _ in range(n_sections):
        places = generator.normal(size=(n, 2))
        radius = np.linalg.norm(places, axis=1, keepdims=True)
        genes = radius @ np.ones((1, 8)) + 0.2 * generator.normal(size=(n, 8))
        features.append(places)
        expression.append(genes - genes.mean(axis=0))
    return features, expression


def _correlation(space, features, expression):
    predicted, truth = (
        space.embed_features(features)[:, 0],
        space.embed_expression(expression)[:, 0],
    )
    return float(np.corrcoef(predicted, truth)[0, 1])


def test_a_kernel_follows_what_is_not_linear_and_auto_takes_the_better():
    groups = ["a", "b"]
    for data, kernel_wins in ((_rings(), True), (_sections(shared=1), False)):
        features, expression = data
        found = {}
        for method in (JointMethod.RIDGE, JointMethod.KERNEL, JointMethod.AUTO):
            settings = JointSettings(method, n_components=1)
            space = fit_joint_space(features[:2], expression[:2], groups=groups, settings=settings)
            found[method] = _correlation(space, features[2], expression[2]), space.kernel
        assert (found[JointMethod.AUTO][1] is not None) is kernel_wins
        if kernel_wins:
            assert found[JointMethod.KERNEL][0] > 0.9 > 0.3 > abs(found[JointMethod.RIDGE][0])
        winner = JointMethod.KERNEL if kernel_wins else JointMethod.RIDGE
        assert found[JointMethod.AUTO][0] == found[winner][0]


@pytest.mark.parametrize("method", [JointMethod.RIDGE, JointMethod.KERNEL])
def test_what_is_far_from_all_training_features_stays_far_in_the_joint_space(method):
    features, expression = _sections()
    settings = JointSettings(method, n_components=3, alpha=1.0)
    space = fit_joint_space(features, expression, groups=["a", "b", "c"], settings=settings)
    known = np.linalg.norm(space.embed_features(features[0]), axis=1)
    far = np.linalg.norm(space.embed_features(features[0] * 30), axis=1)
    assert np.median(far) > 4 * np.median(known)


def test_a_kernel_is_fitted_on_a_sample_of_many_spots(monkeypatch):
    features, expression = _rings()
    settings = JointSettings(JointMethod.KERNEL, n_components=1, alpha=0.3)
    monkeypatch.setattr("stretrieve.models.joint.MAX_SPOTS", 60)
    space = fit_joint_space(features, expression, groups=["a", "b", "c"], settings=settings)
    assert len(space.kernel.landmarks) == 60
    assert _correlation(space, features[2], expression[2]) > 0.9


def test_with_every_spot_a_landmark_it_is_kernel_ridge_regression():
    features, expression = _rings(n=40, n_sections=1)
    settings = JointSettings(JointMethod.KERNEL, n_components=2, alpha=0.7)
    space = fit_joint_space(features, expression, groups=["a"], settings=settings)
    x = (features[0] - features[0].mean(axis=0)) / features[0].std(axis=0)
    distances = ((x[:, None] - x[None]) ** 2).sum(axis=-1)
    gram = np.exp(-distances / space.kernel.width) + x @ x.T / 2
    dual = np.linalg.solve(gram + 0.7 * np.eye(40), expression[0] @ space.expression_map)
    np.testing.assert_allclose(space.embed_features(features[0]), gram @ dual, atol=1e-4)


@pytest.mark.parametrize("method", [JointMethod.RIDGE, JointMethod.KERNEL])
def test_constant_feature_has_no_influence(method):
    features, expression = _sections()
    features = [np.concatenate([f, np.full((len(f), 1), 5.0)], axis=1) for f in features]
    space = fit_joint_space(
        features, expression, groups=["a", "b", "c"], settings=JointSettings(method, alpha=1.0)
    )
    changed = features[0].copy()
    changed[:, -1] = 9.0
    np.testing.assert_allclose(
        space.embed_features(changed), space.embed_features(features[0]), atol=1e-5
    )


@pytest.mark.parametrize("method", ["ridge", "kernel"])
def test_arrays_round_trip(method):
    features, expression = _sections(n_sections=1)
    settings = JointSettings(JointMethod(method), alpha=1.0)
    space = fit_joint_space(features, expression, groups=["a"], settings=settings)
    assert (space.kernel is not None) is (method == "kernel")
    again = JointSpace.from_arrays(space.to_arrays())
    np.testing.assert_array_equal(
        again.embed_features(features[0]), space.embed_features(features[0])
    )


def test_refuses_what_does_not_pair_up():
    features, expression = _sections(n_sections=2)
    with pytest.raises(ShapeError, match="joint space"):
        fit_joint_space(features, expression[:1], groups=["a", "b"], settings=JointSettings())
    with pytest.raises(ConfigError, match="alpha"):
        JointSettings(alpha=0.0)
    with pytest.raises(ConfigError, match="n_components"):
        JointSettings(n_components=0)
