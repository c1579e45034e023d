"""Image encoders: any timm or open_clip tower, with its preprocessing and its weights' digest."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from stretrieve.config import take_choices
from stretrieve.errors import ConfigError, EmbedderMismatchError, ShapeError, explain
from stretrieve.models.colour import colour_statistics
from stretrieve.models.towers import Tower, build_tower
from stretrieve.models.weights import state_digest

_CHUNK: Final = 64
_CPU_CHUNK: Final = 16
"""Maps of more patches leave the caches and take new memory in every layer; of fewer, some libraries
round otherwise."""
_STATISTICS_PX: Final = 64


class Pooling(StrEnum):
    """How the tokens or maps of a tower become one feature vector."""

    AUTO = "auto"
    """As the architecture defines it."""
    CLS_MEAN = "cls+mean"
    """Class token beside the mean of the patch tokens (transformers only)."""


@dataclass(frozen=True)
class EncoderSettings:
    """Which tower, with which weights, fed how.

    Parameters
    ----------
    backbone
        timm architecture, ``open_clip:MODEL`` (``open_clip:MODEL@TAG`` with ``pretrained``), or
        ``auto`` to read the architecture from the folder or hub repository of the weights.
    weights
        ``none`` (random, from ``seed``), ``pretrained``, a local ``.safetensors`` file or folder,
        or ``hf-hub:ORG/NAME`` with an optional ``@REVISION``.
    seed
        Seed of random weights.
    image_px
        Side that patches are resized to; ``None`` for what a fixed-size tower wants, else
        unchanged.
    mean, std
        RGB mean and standard deviation on the scale 0 to 1; ``None`` for the tower's own.
    pooling
        How tokens become features.
    model_kwargs
        Further arguments of the architecture (for example ``{"pad_type": "same"}``).
    statistics
        Append the colour and texture statistics of each patch
        (:func:`~stretrieve.models.colour.colour_statistics`) to the tower's features.
    licence
        Licence of the weights, to be kept with whatever is made with them; empty for what their
        publisher's configuration says.
    """

    backbone: str = "resnet18"
    weights: str = "none"
    seed: int = 0
    image_px: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    pooling: Pooling = Pooling.AUTO
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    statistics: bool = False
    licence: str = ""

    def __post_init__(self) -> None:
        take_choices(self)
        if self.image_px is not None and self.image_px < 1:
            raise ConfigError(explain("image_px", got=self.image_px, expected="1 or more"))
        if self.std is not None and min(self.std) <= 0:
            raise ConfigError(explain("std", got=self.std, expected="numbers above 0"))


@dataclass(frozen=True)
class EncoderDescription:
    """What an encoder is once everything has been resolved; kept with whatever it embedded.

    Parameters
    ----------
    library
        ``timm`` or ``open_clip``.
    architecture
        Name within the library.
    model_kwargs
        Arguments it was built with.
    pooling
        How tokens become features.
    image_px
        Side that patches are resized to; ``None`` for no resizing.
    mean, std
        RGB normalisation on the scale 0 to 1.
    dim
        Width of the features.
    source, revision, licence
        Where the weights came from, as far as known.
    sha256
        Digest of the weights in memory, see :func:`~stretrieve.models.weights.state_digest`.
    statistics
        Whether colour and texture statistics follow the tower's features.
    """

    library: str
    architecture: str
    model_kwargs: dict[str, Any]
    pooling: Pooling
    image_px: int | None
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    dim: int
    source: str
    revision: str
    licence: str
    sha256: str
    statistics: bool = False


class PatchEncoder(nn.Module, ABC):
    """What turns uint8 RGB patches into features; the part that all image encoders share.

    Calling it on tensors, one ``(batch, patch_px, patch_px, 3)`` a view, gives ``(batch, dim)``.
    """

    network: nn.Module
    mean: Tensor
    dim: int

    @abstractmethod
    def describe(self) -> EncoderDescription:
        """Return the resolved facts, with the digest of the weights as they are now."""

    @abstractmethod
    def encode_views(self, views: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return features ``(n_patches, dim)`` of views ``(n_patches, patch_px, patch_px, 3)``."""


class ImageEncoder(PatchEncoder):
    """A tower with its preprocessing; batch norm and dropout stay in inference mode unless trained.

    Parameters
    ----------
    tower
        The network and what is known about it.
    settings
        What the user asked for.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, tower: Tower, settings: EncoderSettings) -> None:
        super().__init__()
        self.network = tower.network
        self.pooling = settings.pooling
        self.image_px = settings.image_px or tower.fixed_px
        self.statistics = settings.statistics
        mean, std = settings.mean or tower.mean, settings.std or tower.std
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)
        self.eval()
        self._tower, self._mean, self._std = tower, mean, std
        self._licence = settings.licence or tower.licence
        self.dim = self._measure_dim(tower.native_px)

    def describe(self) -> EncoderDescription:
        """Return the resolved facts, with the digest of the weights as they are now."""
        tower = self._tower
        return EncoderDescription(
            library=tower.library,
            architecture=tower.architecture,
            model_kwargs=dict(tower.model_kwargs),
            pooling=self.pooling,
            image_px=self.image_px,
            mean=self._mean,
            std=self._std,
            dim=self.dim,
            source=tower.source,
            revision=tower.revision,
            licence=self._licence,
            sha256=state_digest(self.network.state_dict()),
            statistics=self.statistics,
        )

    def prepare(self, patches: Tensor) -> Tensor:
        """Turn uint8 RGB ``(batch, height, width, 3)`` into input ``(batch, 3, height, width)``."""
        pixels = patches.permute(0, 3, 1, 2).to(self.mean.device).float() / 255
        if self.image_px is not None and pixels.shape[-2:] != (self.image_px, self.image_px):
            size = (self.image_px, self.image_px)
            pixels = functional.interpolate(pixels, size, mode="bilinear", antialias=True)
        return (pixels - self.mean) / self.std

    def forward(self, patches: Tensor) -> Tensor:
        """Map uint8 RGB patches ``(batch, height, width, 3)`` to features ``(batch, dim)``."""
        features = self._tower_features(patches)
        if not self.statistics:
            return features
        return torch.cat([features, _statistics(patches).to(features)], dim=1)

    def _tower_features(self, patches: Tensor) -> Tensor:
        pixels = self.prepare(patches)
        if self.pooling is Pooling.AUTO:
            return cast("Tensor", self.network(pixels))
        tokens = self.network.forward_features(pixels)  # type: ignore[operator] # timm method
        first = int(getattr(self.network, "num_prefix_tokens", 0))
        if tokens.ndim != 3 or first < 1:
            name = self._tower.architecture
            raise ConfigError(
                explain("pooling 'cls+mean'", got=name, expected="a transformer with class token")
            )
        return torch.cat([tokens[:, 0], tokens[:, first:].mean(dim=1)], dim=1)

    def encode_views(self, views: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return :meth:`encode` of the only view."""
        return self.encode(views[0])

    @torch.no_grad()
    def encode(self, patches: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return features ``(n_patches, dim)`` of patches ``(n_patches, patch_px, patch_px, 3)``.

        Raises
        ------
        ShapeError
            When the patches are not uint8 RGB.
        """
        if patches.ndim != 4 or patches.shape[-1] != 3 or patches.dtype != np.uint8:
            got = f"{patches.shape} {patches.dtype}"
            raise ShapeError(explain("patches", got=got, expected="(n, px, px, 3) uint8"))
        features = np.empty((len(patches), self.dim), dtype=np.float32)
        step = _CPU_CHUNK if self.mean.device.type == "cpu" else _CHUNK
        for start in range(0, len(patches), step):
            rows = slice(start, start + step)
            chunk = torch.from_numpy(np.array(patches[rows]))  # may be read-only
            features[rows] = self(chunk).float().cpu().numpy()
        return features

    @torch.no_grad()
    def _measure_dim(self, native_px: int) -> int:
        side = self.image_px or native_px
        return int(self(torch.zeros(1, side, side, 3, dtype=torch.uint8)).shape[-1])


def _statistics(patches: Tensor) -> Tensor:
    """Return colour and texture statistics of uint8 patches, on at most 64 px a side."""
    pixels = patches.detach().cpu().permute(0, 3, 1, 2).float()
    if max(pixels.shape[-2:]) > _STATISTICS_PX:
        pixels = functional.adaptive_avg_pool2d(pixels, _STATISTICS_PX)
    small = pixels.round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.from_numpy(colour_statistics(small))


def create_encoder(settings: EncoderSettings) -> ImageEncoder:
    """Build the encoder that ``settings`` ask for, with its weights.

    Raises
    ------
    ConfigError
        When the architecture is unknown or its arguments are wrong.
    InputError
        When the weights are missing or not safetensors.
    EmbedderMismatchError
        When the weights do not fit the architecture.
    """
    tower = build_tower(
        settings.backbone,
        weights=settings.weights,
        seed=settings.seed,
        model_kwargs=settings.model_kwargs,
    )
    return ImageEncoder(tower, settings)


def restore_encoder(description: EncoderDescription, state: Mapping[str, Tensor]) -> ImageEncoder:
    """Rebuild an encoder from its description and its own stored weights.

    Raises
    ------
    EmbedderMismatchError
        When the weights do not fit, or are not those that were described.
    """
    prefix = "open_clip:" if description.library == "open_clip" else ""
    tower = build_tower(
        prefix + description.architecture,
        weights="none",
        seed=0,
        model_kwargs=description.model_kwargs,
    )
    tower = dataclasses.replace(
        tower,
        source=description.source,
        revision=description.revision,
        licence=description.licence,
    )
    try:
        tower.network.load_state_dict(dict(state), strict=True)
    except RuntimeError as error:
        raise EmbedderMismatchError(
            explain(f"stored weights of {description.architecture}", got=error)
        ) from error
    encoder = ImageEncoder(
        tower,
        EncoderSettings(
            image_px=description.image_px,
            mean=description.mean,
            std=description.std,
            pooling=description.pooling,
            statistics=description.statistics,
        ),
    )
    check_same(encoder.describe(), description)
    return encoder


def check_same(got: EncoderDescription, expected: EncoderDescription) -> None:
    """Refuse an encoder whose weights or preprocessing differ from the described ones.

    Raises
    ------
    EmbedderMismatchError
        Naming the first field that differs.
    """
    for name in (
        "architecture", "pooling", "image_px", "mean", "std", "statistics", "dim", "sha256",
    ):  # fmt: skip
        a, b = getattr(got, name), getattr(expected, name)
        if a != b:
            raise EmbedderMismatchError(
                explain(
                    f"{name} of the image encoder",
                    got=a,
                    expected=b,
                    remedy="use the weights and preprocessing that the embedder was fitted with",
                )
            )
