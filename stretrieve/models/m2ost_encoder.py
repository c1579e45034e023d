"""M2OST as an image encoder: uint8 fields of view in, joined class tokens out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from stretrieve.config import settings_to_dict
from stretrieve.errors import ShapeError, explain
from stretrieve.models.encoders import EncoderDescription, PatchEncoder, Pooling
from stretrieve.models.m2ost import M2ost, M2ostSettings
from stretrieve.models.weights import state_digest

_CHUNK = 16
_ARCHITECTURE = "m2ost"


class M2ostEncoder(PatchEncoder):
    """M2OST with its preprocessing (pixels from 0 to 1, as published).

    Parameters
    ----------
    settings
        Sizes of the network.
    seed
        Of its random start.
    """

    network: M2ost

    def __init__(self, settings: M2ostSettings, *, seed: int) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.network = M2ost(settings)
        self.dim = settings.dim
        self.register_buffer("mean", torch.zeros(1, 3, 1, 1), persistent=False)
        self._seed = seed
        self.eval()

    def describe(self) -> EncoderDescription:
        """Return what it is, with the digest of the weights as they are now."""
        settings = self.network.settings
        return EncoderDescription(
            library="stretrieve",
            architecture=_ARCHITECTURE,
            model_kwargs={**settings_to_dict(settings), "seed": self._seed},
            pooling=Pooling.AUTO,
            image_px=settings.image_px,
            mean=(0.0, 0.0, 0.0),
            std=(1.0, 1.0, 1.0),
            dim=self.dim,
            source="none",
            revision="",
            licence="",
            sha256=state_digest(self.network.state_dict()),
        )

    def forward(self, *views: Tensor) -> Tensor:
        """Map uint8 RGB views, each ``(batch, image_px, image_px, 3)``, to ``(batch, dim)``."""
        pixels = [v.permute(0, 3, 1, 2).to(self.mean.device).float() / 255 for v in views]
        features: Tensor = self.network(pixels)
        return features

    @torch.no_grad()
    def encode_views(self, views: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
        """Return features ``(n_patches, dim)`` of views ``(n_patches, image_px, image_px, 3)``.

        Raises
        ------
        ShapeError
            When the views are not uint8 RGB.
        """
        if any(v.ndim != 4 or v.shape[-1] != 3 or v.dtype != np.uint8 for v in views):
            got = [f"{v.shape} {v.dtype}" for v in views]
            raise ShapeError(explain("patches", got=got, expected="(n, px, px, 3) uint8"))
        features = np.empty((len(views[0]), self.dim), dtype=np.float32)
        for start in range(0, len(features), _CHUNK):
            rows = slice(start, start + _CHUNK)
            chunk = [torch.from_numpy(np.array(v[rows])) for v in views]
            features[rows] = self(*chunk).float().cpu().numpy()
        return features
