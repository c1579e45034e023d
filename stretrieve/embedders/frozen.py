"""The ``frozen`` embedder: any backbone as it is, with a closed-form or trained projection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

from stretrieve.config import settings_from_dict, settings_to_dict, take_choices
from stretrieve.embedders.bimodal import BimodalEmbedder
from stretrieve.embedders.bimodal_settings import BimodalSettings, Head, TrainingRates
from stretrieve.embedders.presets import find_preset
from stretrieve.errors import ConfigError, explain
from stretrieve.models.encoders import EncoderSettings, PatchEncoder
from stretrieve.models.joint import JointSettings
from stretrieve.models.losses import ContrastiveSettings


@dataclass(frozen=True)
class FrozenSettings:
    """Settings of :class:`FrozenEmbedder`.

    Parameters
    ----------
    preset
        Name of a known model (``stretrieve.embedders.presets``); gives encoder, patch size and
        field of view. ``encoder.weights`` still says where the weights are when they are a local
        copy.
    encoder
        The image tower and its weights.
    patch_px, side_um
        Side of a patch in pixels and in microns; ``None`` for the preset's, else 224 px and 200 µm.
    n_genes
        Size of the gene panel.
    head
        ``closed-form`` (default), or a trained ``linear`` or ``mlp`` projection.
    dim
        Width of the joint space of ``mlp`` projections; others have ``joint.n_components``.
    joint
        The closed-form joint space, where trained projections start.
    loss
        Contrastive loss of trained projections.
    rates
        Step sizes of trained projections.
    store_backbone
        Whether the tower's weights are saved with the embedder.
    seed
        Of random starts.
    """

    preset: str = ""
    encoder: EncoderSettings = field(default_factory=EncoderSettings)
    patch_px: int | None = None
    side_um: float | None = None
    n_genes: int = 1000
    head: Head = Head.CLOSED_FORM
    dim: int = 256
    joint: JointSettings = field(default_factory=JointSettings)
    loss: ContrastiveSettings = field(default_factory=ContrastiveSettings)
    rates: TrainingRates = field(default_factory=TrainingRates)
    store_backbone: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        take_choices(self)
        if self.preset and self.encoder.backbone != EncoderSettings().backbone:
            raise ConfigError(
                explain(
                    "encoder.backbone", got=self.encoder.backbone, expected="none with a preset"
                )
            )
        self.resolve()

    def resolve(self) -> BimodalSettings:
        """Return the settings of the two-tower embedder that this one is."""
        encoder, patch_px, side_um = self.encoder, 224, 200.0
        if self.preset:
            preset = find_preset(self.preset)
            encoder = dataclasses.replace(
                preset.encoder(weights=self.encoder.weights), statistics=self.encoder.statistics
            )
            patch_px, side_um = preset.patch_px, preset.side_um
        shared = {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name not in ("preset", "encoder", "patch_px", "side_um")
        }
        return BimodalSettings(
            encoder=encoder,
            patch_px=self.patch_px or patch_px,
            side_um=self.side_um or side_um,
            **shared,
        )


class FrozenEmbedder(BimodalEmbedder):
    """Any backbone, used as it is; a reference builds in about the time of one forward pass.

    Parameters
    ----------
    settings
        See :class:`FrozenSettings`.
    encoder
        The image tower, when it has been built already.
    """

    name: ClassVar[str] = "frozen"
    needs: ClassVar[str] = "one view; weights of a timm or open_clip tower"

    def __init__(
        self, settings: FrozenSettings | None = None, *, encoder: PatchEncoder | None = None
    ) -> None:
        self._asked = settings or FrozenSettings()
        super().__init__(self._asked.resolve(), encoder=encoder)

    def to_config(self) -> dict[str, Any]:
        """Return the settings as plain JSON data."""
        return settings_to_dict(self._asked)

    @classmethod
    def _build(cls, config: Mapping[str, Any], encoder: PatchEncoder | None) -> Self:
        return cls(settings_from_dict(FrozenSettings, config, where=cls.name), encoder=encoder)
