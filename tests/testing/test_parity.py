"""The parity command: real arrays pass, other sizes pass, every altered array is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from stretrieve.errors import EmbedderMismatchError, ExitCode, InputError, InputNotFoundError
from stretrieve.testing import parity
from stretrieve.testing._parity_methods import METHODS, Arrays
from stretrieve.testing.parity import check_parity, failures, main

OUTPUTS = {
    "bleep.npz": [
        "image_embedding",
        "spot_embedding",
        "loss_T1.0",
        "loss_T0.5",
        "loss_T2.0",
        "indices_top50",
        "pred_simple",
        "pred_average",
        "pred_weighted_average",
    ],
    "stgchb.npz": [
        "adjacency",
        *(f"{s}_{x}" for s in ("spot", "image") for x in ("dgi_logits", "dgi_loss", "embedding")),
        "spot_gcn_embedding",
        "image_gcn_embedding",
        *(f"{n}hsic_{p}" for n in ("", "n") for p in ("x_z_spot", "e_z_spot", "x_z_image")),
        "hsic_z_e_image",
        "nhsic_z_e_image",
        "hsic_loss_spot",
        "hsic_loss_image_published",
        "hsic_loss_image_symmetric",
        "alignment_loss",
    ],
    "m2ost.npz": ["output"],
    "mclstexp.npz": ["spot_embedding", "loss"],
}


@pytest.fixture(scope="module")
def published(shared_data: Path) -> Path:
    return shared_data / "parity"


@pytest.fixture
def copied(published: Path, tmp_path: Path) -> Path:
    for name in METHODS:
        (tmp_path / name).write_bytes((published / name).read_bytes())
    return tmp_path


def rewrite(folder: Path, file: str, **changes: np.ndarray | None) -> None:
    with np.load(folder / file) as archive:
        arrays = {**archive, **changes}
    np.savez(folder / file, **{k: v for k, v in arrays.items() if v is not None})


def test_published_arrays_are_reproduced(published: Path, capsys) -> None:
    assert main([str(published)]) == ExitCode.OK
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert err == ""
    assert {file: sorted(arrays) for file, arrays in printed.items()} == {
        file: sorted(arrays) for file, arrays in OUTPUTS.items()
    }
    assert max(d for arrays in printed.values() for d in arrays.values()) <= 1e-5


def test_every_output_array_in_the_files_is_checked(published: Path) -> None:
    """An array is an input, a weight, or recomputed: nothing is passed over."""
    inputs = {
        "bleep.npz": {"image_features", "spot_features", "key", "expression", "query"},
        "stgchb.npz": {
            *("xy", "gene_features", "image_features", "permutation"),
            *("sigma", "beta", "temperature"),
        },
        "m2ost.npz": {
            *("level0", "level1", "level2", "image_size", "patch_size", "num_classes"),
            *("dim", "depth", "heads", "mlp_dim", "dim_head"),
        },
        "mclstexp.npz": {"expression", "position", "image_embedding", "heads", "dim_head"},
    }
    for file, outputs in OUTPUTS.items():
        with np.load(published / file) as archive:
            left = set(archive.files) - inputs[file] - set(outputs)
        assert all(name.rsplit(".", 1)[-1] in ("weight", "bias") or "w." in name for name in left)


ALL_OUTPUTS = [(file, array) for file, arrays in OUTPUTS.items() for array in arrays]


@pytest.mark.parametrize(("file", "array"), ALL_OUTPUTS)
def test_an_altered_output_is_named(
    copied: Path, file: str, array: str, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(parity, "METHODS", {file: METHODS[file]})
    with np.load(copied / file) as archive:
        value = archive[array].copy()
    step = 1 if value.dtype.kind == "i" else max(3e-5 * abs(float(value.flat[0])), 3e-5)
    value.reshape(-1)[:1] += np.array(step, dtype=value.dtype)
    rewrite(copied, file, **{array: value})
    assert main([str(copied)]) == ExitCode.MISMATCH
    out, err = capsys.readouterr()
    assert f"{file}: {array}" in err
    assert err.count("\n") == 1
    assert failures(json.loads(out)) == [f"{file}: {array}"]


@pytest.mark.parametrize(
    ("file", "array", "hit"),
    [
        ("bleep.npz", "image_projection.fc.bias", "image_embedding"),
        ("bleep.npz", "query", "indices_top50"),
        ("stgchb.npz", "spot_dgi.disc.f_k.weight", "spot_dgi_logits"),
        ("stgchb.npz", "beta", "hsic_loss_spot"),
        ("m2ost.npz", "w.transformer.layers.1.2.to_k2.weight", "output"),
        ("mclstexp.npz", "y_embed.weight", "spot_embedding"),
    ],
)
def test_altered_weights_and_inputs_are_felt(copied: Path, file: str, array: str, hit: str) -> None:
    with np.load(copied / file) as archive:
        value = archive[array]
    rewrite(copied, file, **{array: (value * 2 + 1)[::-1] if value.ndim else value * 2})
    assert f"{file}: {hit}" in failures(check_parity(copied))


@pytest.mark.parametrize("file", list(METHODS))
def test_missing_file_is_one_line(copied: Path, file: str, capsys) -> None:
    (copied / file).unlink()
    assert main([str(copied)]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert file in err
    assert err.count("\n") == 1
    with pytest.raises(InputNotFoundError):
        check_parity(copied)


def test_missing_arrays_are_refused(published: Path) -> None:
    for file, recompute in METHODS.items():
        with np.load(published / file) as archive:
            arrays = dict(archive)
        for name in arrays:
            if name.startswith("w.transformer.layers") and ".0.norm." in name:
                continue
            fewer = Arrays({n: a for n, a in arrays.items() if n != name}, where=file)
            refused = pytest.raises((InputError, EmbedderMismatchError))
            with refused as caught, torch.inference_mode():
                for output in recompute(fewer):
                    fewer.require(output)
            assert "\n" not in str(caught.value)


def test_missing_output_is_one_line(copied: Path, capsys) -> None:
    rewrite(copied, "stgchb.npz", nhsic_x_z_image=None)
    assert main([str(copied)]) == ExitCode.BAD_INPUT
    out, err = capsys.readouterr()
    assert out == ""
    assert "nhsic_x_z_image" in err
    assert err.count("\n") == 1


@pytest.mark.parametrize("content", [b"", b"not a zip", b"PK\x03\x04 cut short"])
def test_broken_file_is_one_line(copied: Path, content: bytes, capsys) -> None:
    (copied / "m2ost.npz").write_bytes(content)
    assert main([str(copied)]) == ExitCode.BAD_INPUT
    err = capsys.readouterr().err
    assert "m2ost.npz" in err
    assert err.count("\n") == 1


def test_pickled_arrays_are_refused(copied: Path) -> None:
    np.savez(copied / "bleep.npz", image_features=np.array([{}], dtype=object))
    with pytest.raises(InputError, match=r"bleep\.npz"):
        check_parity(copied)


def test_weights_of_a_wrong_shape_are_one_line(copied: Path, capsys) -> None:
    rewrite(
        copied, "mclstexp.npz", **{"spot_encoder.0.attn.fn.to_qkv.weight": np.ones((3, 3), "f4")}
    )
    assert main([str(copied)]) == ExitCode.BAD_INPUT
    assert capsys.readouterr().err.count("\n") == 1


def test_nan_is_a_failure(copied: Path, capsys) -> None:
    with np.load(copied / "mclstexp.npz") as archive:
        loss = archive["loss"] * np.float32("nan")
    rewrite(copied, "mclstexp.npz", loss=loss)
    assert main([str(copied)]) == ExitCode.MISMATCH
    assert json.loads(capsys.readouterr().out)["mclstexp.npz"]["loss"] is None


def _projection(
    rng: np.random.Generator, name: str, inputs: int, dim: int
) -> dict[str, np.ndarray]:
    shapes = {
        "projection.weight": (dim, inputs),
        "projection.bias": (dim,),
        "fc.weight": (dim, dim),
        "fc.bias": (dim,),
        "layer_norm.weight": (dim,),
        "layer_norm.bias": (dim,),
    }
    return {f"{name}.{k}": rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}


def test_other_sizes_and_seeds_are_read_from_the_arrays() -> None:
    rng = np.random.default_rng(5)
    arrays = {
        "image_features": rng.normal(size=(7, 9)).astype(np.float32),
        "spot_features": rng.normal(size=(7, 5)).astype(np.float32),
        "key": rng.normal(size=(90, 4)).astype(np.float32),
        "expression": rng.random((90, 3)).astype(np.float32),
        "query": rng.normal(size=(6, 4)).astype(np.float32),
        "indices_top50": np.zeros((6, 50), np.int64),
        "loss_T0.7": np.float32(0),
        **_projection(rng, "image_projection", 9, 6),
        **_projection(rng, "spot_projection", 5, 6),
    }
    with torch.inference_mode():
        out = METHODS["bleep.npz"](Arrays(arrays, where="bleep.npz"))
    assert out["image_embedding"].shape == (7, 6)
    assert "loss_T0.7" in out
    key, query = (
        arrays[n] / np.linalg.norm(arrays[n], axis=1, keepdims=True) for n in ("key", "query")
    )
    order = np.argsort(-(query @ key.T), axis=1)[:, :50]
    np.testing.assert_array_equal(out["indices_top50"], order)
    distances = ((arrays["key"][order] - arrays["query"][:, None]) ** 2).sum(-1)
    weights = np.exp(-(distances - distances[:, :1] + 1))
    weighted = np.einsum("qk,qkg->qg", weights, arrays["expression"][order])
    expected = weighted / weights.sum(1, keepdims=True)
    np.testing.assert_allclose(out["pred_weighted_average"], expected, atol=1e-5)
