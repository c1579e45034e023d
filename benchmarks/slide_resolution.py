"""The same patches of one tissue scanned at two resolutions: does a fixed encoder see the same?

    python benchmarks/slide_resolution.py SLIDE --weights mobilenetv2_imagenet.safetensors

From a real slide two are written: one at 0.25 µm/px (enlarged where the slide is coarser) and one at
0.5 µm/px, and once more at the slide's own resolution and at half of it. Patches are cut around the
same points at one physical size from both, and ImageNet MobileNetV2 features are compared pair by
pair. Exit code 1 when a median cosine is below 0.98 though both scans are fine enough for the patch;
the last line shows what is lost when one of them is not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

from stretrieve.slides import open_slide, read_patches
from stretrieve.specs import PatchSpec, PatchView

PATCH_PX = 224
TARGET = 0.98


def resized(picture: np.ndarray, factor: float) -> np.ndarray:
    size = tuple(round(side * factor) for side in picture.shape[1::-1])
    resample = Image.Resampling.LANCZOS if factor > 1 else Image.Resampling.BOX
    return np.asarray(Image.fromarray(picture).resize(size, resample))


def write_scan(path: Path, picture: np.ndarray, mpp: float, *, levels: int) -> Path:
    with tifffile.TiffWriter(path) as tiff:
        for level in range(levels):
            tiff.write(
                resized(picture, 0.5**level) if level else picture,
                tile=(256, 256),
                photometric="rgb",
                compression="zlib",
                subfiletype=int(level > 0),
                resolution=(1e4 / mpp, 1e4 / mpp) if not level else None,
                resolutionunit="CENTIMETER" if not level else None,
                metadata=None,
            )
    return path


def patches(path: Path, xy_um: np.ndarray, spec: PatchSpec) -> np.ndarray:
    with open_slide(path) as slide:
        batches = list(read_patches(slide, slide.pixel_size.to_px(xy_um), spec))
    if any(batch.status.any() for batch in batches):
        raise SystemExit("a patch failed or lies over the edge")
    return np.concatenate([batch.views[0] for batch in batches])


def features(weights: Path, pixels: np.ndarray) -> np.ndarray:
    """ImageNet MobileNetV2 features, ``(n, 1280)``."""
    import timm
    import torch
    from safetensors.torch import load_file

    model = timm.create_model("mobilenetv2_100", num_classes=0, pad_type="same").eval()
    state = load_file(weights)
    names = [name for name in model.state_dict() if not name.endswith("num_batches_tracked")]
    model.load_state_dict({name: state[name] for name in names}, strict=False)
    with torch.inference_mode():
        return model(torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1).numpy()


def cosines(weights: Path, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    one, two = features(weights, a), features(weights, b)
    return (one * two).sum(axis=1) / np.linalg.norm(one, axis=1) / np.linalg.norm(two, axis=1)


def compare(
    picture: np.ndarray, mpp: float, fine_mpp: float, patch_mpp: float, options: argparse.Namespace
) -> float:
    """Print how features agree between ``fine_mpp`` and twice that; return the median cosine."""
    fine = picture if fine_mpp == mpp else resized(picture, mpp / fine_mpp)
    extent_um = np.array(picture.shape[1::-1]) * mpp
    margin = patch_mpp * PATCH_PX / 2 + 2
    xy_um = np.random.default_rng(0).uniform(margin, extent_um - margin, (options.patches, 2))
    spec = PatchSpec((PatchView(PATCH_PX, patch_mpp),))
    with tempfile.TemporaryDirectory() as folder:
        coarse = resized(fine, 0.5)
        scans = (
            write_scan(Path(folder) / "fine.tiff", fine, fine_mpp, levels=1),
            write_scan(Path(folder) / "coarse.tiff", coarse, 2 * fine_mpp, levels=2),
        )
        same = cosines(options.weights, *(patches(scan, xy_um, spec) for scan in scans))
        other = patches(scans[1], xy_um[::-1], spec)
        apart = cosines(options.weights, patches(scans[0], xy_um, spec), other)
    low, middle = np.percentile(same, [5, 50])
    print(
        f"{fine_mpp:.3g} and {2 * fine_mpp:.3g} µm/px, {options.patches} patches at {patch_mpp:g}: "
        f"median cosine {middle:.4f}, 5th percentile {low:.4f}; other places {np.median(apart):.4f}",
        flush=True,
    )
    return float(middle)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("slide", type=Path)
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--patches", type=int, default=60)
    options = parser.parse_args()
    with open_slide(options.slide) as slide:
        mpp = slide.pixel_size.mean
        width, height = (side // 4 * 4 for side in slide.dimensions)
        picture = slide.read_region((0, 0), 0, (width, height))
    medians = [
        compare(picture, mpp, fine, max(0.67, round(2 * fine, 2)), options) for fine in (0.25, mpp)
    ]
    compare(picture, mpp, mpp, 0.67 * 2 * mpp, options)
    return int(min(medians) < TARGET)


if __name__ == "__main__":
    sys.exit(main())
