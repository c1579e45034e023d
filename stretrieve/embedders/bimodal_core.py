"""What a two-tower embedder is, how it embeds, and how it is kept on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from scipy import sparse
from torch import Tensor, nn

from stretrieve._files import canonical_json, sha256_text
from stretrieve.config import settings_from_dict, settings_to_dict
from stretrieve.embedders.base import Embedder, Embeddings
from stretrieve.embedders.bimodal_settings import BimodalSettings, ExpressionInput
from stretrieve.embedders.bimodal_start import empty_model
from stretrieve.embedders.checks import check_batch, check_features, not_fitted
from stretrieve.embedders.known_answer import check_known_answer, known_answer, known_patch
from stretrieve.embedders.memo import FeatureMemo, shared_memo
from stretrieve.embedders.panel import GenePanel
from stretrieve.embedders.storage import StoredEmbedder, read_embedder, write_embedder
from stretrieve.errors import EmbedderMismatchError, explain
from stretrieve.models.bimodal import BimodalModel
from stretrieve.models.encoders import (
    EncoderDescription,
    PatchEncoder,
    check_same,
    create_encoder,
    restore_encoder,
)
from stretrieve.slides.types import PatchBatch
from stretrieve.specs import PatchSpec

_TOWER = "image_encoder."
_IMAGE_HEAD = "image_projection"


class BimodalCore(Embedder):
    """An image tower, a gene panel, and a head for each modality.

    Parameters
    ----------
    settings
        See :class:`BimodalSettings`.
    encoder
        The image tower, when it has been built already.
    """

    def __init__(self, settings: BimodalSettings, *, encoder: PatchEncoder | None = None) -> None:
        self.settings = settings
        self._encoder = encoder or self._create_encoder()
        self._origin = self._encoder.describe()
        self._panel: GenePanel | None = None
        self._model: BimodalModel | None = None
        self._touched = False

    def _create_encoder(self) -> PatchEncoder:
        """Return the image tower with the weights that the settings name."""
        return create_encoder(self.settings.encoder)

    @classmethod
    def _restore_encoder(
        cls, description: EncoderDescription, state: Mapping[str, Tensor]
    ) -> PatchEncoder:
        """Return the image tower with its own stored weights."""
        return restore_encoder(description, state)

    def _empty_model(self, n_genes: int, dim: int) -> BimodalModel:
        """Return the network for a gene panel and a joint space of these sizes, unfitted."""
        return empty_model(self.settings, self._encoder, n_genes=n_genes, dim=dim)

    @property
    def spec(self) -> PatchSpec:
        """One view."""
        return PatchSpec.single(self.settings.patch_px, side_um=self.settings.side_um)

    @property
    def dim(self) -> int:
        """Width of the joint space."""
        return self._model.image_projection.dim if self._model else self.settings.width

    @property
    def gene_names(self) -> tuple[str, ...]:
        """Gene keys of the panel; empty before :meth:`fit`."""
        return self._panel.names if self._panel else ()

    @property
    def is_row_wise(self) -> bool:
        """Each patch is mapped on its own."""
        return True

    @property
    def model(self) -> BimodalModel:
        """The fitted network."""
        if self._model is None:
            raise not_fitted(self.name)
        return self._model

    @property
    def panel(self) -> GenePanel:
        """The fitted gene panel."""
        if self._panel is None:
            raise not_fitted(self.name)
        return self._panel

    @property
    def network(self) -> nn.Module:
        """The fitted network, for the training loop."""
        return self.model

    @property
    def encoder(self) -> EncoderDescription:
        """What the image tower is and where its weights came from."""
        return self._encoder.describe()

    @property
    def encoder_facts(self) -> Mapping[str, Any]:
        """:attr:`encoder` as plain JSON data."""
        return settings_to_dict(self.encoder)

    @property
    def _device(self) -> torch.device:
        return self._encoder.mean.device

    def to(self, device: str) -> None:
        """Move the network, fitted or not, to a device such as ``cpu`` or ``cuda:1``."""
        self._encoder.to(torch.device(device))
        if self._model is not None:
            self._model.to(torch.device(device))

    def encode_patches(self, batch: PatchBatch) -> Embeddings:
        """Return the tower's features ``(n_patches, feature_dim)`` of one batch.

        Raises
        ------
        EmbedderMismatchError
            When the patches are not what :attr:`spec` asks for.
        """
        if self.settings.backbone_stages != 0:
            return self.encode_once(batch)
        check_batch(batch, self.spec, name=self.name)
        return self._memo().encode(batch.views, self._encoder.encode_views)

    def encode_once(self, batch: PatchBatch) -> Embeddings:
        """Return :meth:`encode_patches` without the memory of earlier patches.

        Raises
        ------
        EmbedderMismatchError
            When the patches are not what :attr:`spec` asks for.
        """
        check_batch(batch, self.spec, name=self.name)
        return self._encoder.encode_views(batch.views)

    def _memo(self) -> FeatureMemo:
        """Return what is remembered of a frozen tower's features."""
        facts = [settings_to_dict(self._origin), str(self._device)]
        return shared_memo(sha256_text(canonical_json(facts)))

    @torch.no_grad()
    def project_patches(self, features: Embeddings, xy_um: npt.NDArray[np.float64]) -> Embeddings:
        """Map features ``(n_patches, feature_dim)`` to embeddings ``(n_patches, dim)``; row by row.

        Raises
        ------
        EmbedderMismatchError
            When the features are not this embedder's.
        """
        del xy_um
        model = self.model
        check_features(features, self._encoder.dim, name=self.name)
        return _numpy(model.project_image(torch.from_numpy(features).to(self._device)))

    @torch.no_grad()
    def embed_expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str], xy_um: npt.NDArray[np.float64]
    ) -> Embeddings:
        """Map raw counts ``(n_spots, n_genes)`` of one section to ``(n_spots, dim)``.

        Raises
        ------
        GenePanelError
            When less than half of :attr:`gene_names` is among ``genes``.
        """
        del xy_um
        model = self.model
        values = torch.from_numpy(self._expression(counts, genes)).to(self._device)
        return _numpy(model.project_expression(values))

    def _expression(
        self, counts: sparse.csr_matrix, genes: Sequence[str]
    ) -> npt.NDArray[np.float32]:
        match self.settings.expression_input:
            case ExpressionInput.SECTION:
                return self.panel.centred(counts, genes)
            case ExpressionInput.TRAINING:
                return self.panel.scaled(counts, genes)
            case ExpressionInput.LOG:
                return np.nan_to_num(self.panel.log_expression(counts, genes))

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self.settings)

    def save(self, folder: Path) -> None:
        """Write ``config.json`` and ``model.safetensors`` into an existing folder."""
        model = self.model
        state = {
            key: tensor.detach().cpu().numpy()
            for key, tensor in model.state_dict().items()
            if self.settings.store_backbone or not key.startswith(_TOWER)
        }
        panel = self.panel
        description = self._encoder.describe()
        fitted = {
            "genes": list(panel.names),
            "dim": self.dim,
            "encoder": settings_to_dict(description),
            "known_answer": known_answer(self._known_features()),
        }
        write_embedder(
            folder,
            name=self.name,
            configuration=self.to_config(),
            fitted=fitted,
            arrays={**state, **panel.to_arrays()},
        )

    def _known_features(self) -> npt.NDArray[np.float32]:
        views = [known_patch(view.patch_px) for view in self.spec.views]
        return self._encoder.encode_views(views)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        """Build an unfitted embedder, around an encoder when there is one."""
        return cls(settings_from_dict(BimodalSettings, config, where=cls.name), encoder=encoder)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Build an unfitted embedder, with the tower's weights.

        Raises
        ------
        ConfigError
            When a setting is unknown or wrong.
        InputError
            When the weights are missing or not safetensors.
        """
        return cls._build(config, None)

    @classmethod
    def load(cls, folder: Path, *, device: str = "cpu") -> Self:
        """Rebuild a fitted embedder from :meth:`save`.

        Raises
        ------
        EmbedderMismatchError
            When weights, preprocessing or the known answer differ from what was saved.
        """
        stored = read_embedder(folder, name=cls.name)
        description = settings_from_dict(EncoderDescription, stored.fitted["encoder"])
        prefix = f"{_TOWER}network."
        tower = {
            key.removeprefix(prefix): torch.from_numpy(array)
            for key, array in stored.arrays.items()
            if key.startswith(prefix)
        }
        encoder = cls._restore_encoder(description, tower) if tower else None
        embedder = cls._build(stored.configuration, encoder)
        embedder.restore(stored, description, device=device)
        return embedder

    def restore(
        self, stored: StoredEmbedder, description: EncoderDescription, *, device: str
    ) -> None:
        """Take back what :meth:`save` wrote; called by :meth:`load`.

        Raises
        ------
        EmbedderMismatchError
            When weights or the known answer differ.
        """
        check_same(self._encoder.describe(), description)
        self._origin = description
        try:
            self._panel = GenePanel.from_arrays(stored.fitted["genes"], stored.arrays)
            model = self._empty_model(len(self._panel), int(stored.fitted["dim"]))
            landmarks = stored.arrays.get(f"{_IMAGE_HEAD}.landmarks")
            if landmarks is not None:
                model.use_kernel(len(landmarks))
            state = {k: torch.from_numpy(v) for k, v in stored.arrays.items() if k in _keys(model)}
            missing = model.load_state_dict(state, strict=False).missing_keys
        except (KeyError, RuntimeError) as error:
            raise EmbedderMismatchError(
                explain(f"stored embedder {self.name!r}", got=error)
            ) from error
        if any(not key.startswith(_TOWER) for key in missing):
            raise EmbedderMismatchError(
                explain(f"stored embedder {self.name!r}", got=f"no weights for {missing[0]}")
            )
        self._model = model.to(torch.device(device))
        check_known_answer(self._known_features(), stored.fitted["known_answer"], name=self.name)


def _keys(model: nn.Module) -> set[str]:
    return set(model.state_dict())


def _numpy(embeddings: Tensor) -> Embeddings:
    return np.asarray(embeddings.float().cpu().numpy(), dtype=np.float32)
