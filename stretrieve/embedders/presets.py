"""Pathology and general image models by name: what they want to see, and under what licence.

Licences are those of the model cards when this table was written; read the card before use. Gated
models need an account that has accepted their terms. Only safetensors are ever loaded: models that
are published in another format are converted once by the user and given as a local file.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any, Final

from stretrieve.errors import ConfigError, explain
from stretrieve.models.encoders import EncoderSettings, Pooling

Triple = tuple[float, float, float]

IMAGENET: Final[tuple[Triple, Triple]] = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF: Final[tuple[Triple, Triple]] = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
OPTIMUS: Final[tuple[Triple, Triple]] = (
    (0.707223, 0.578729, 0.703617),
    (0.211883, 0.230117, 0.177517),
)


@dataclass(frozen=True)
class Preset:
    """A known image model.

    Parameters
    ----------
    name
        How to ask for it.
    hub_id
        Where it is published.
    patch_px
        Side of its input in pixels.
    mpp
        Microns per pixel it was trained at; general models take the 200 µm patch.
    dim
        Width of its features.
    licence
        As on its card.
    gated
        Whether the weights need accepted terms.
    backbone
        timm architecture; empty when neither timm nor open_clip builds it.
    normalisation
        RGB mean and standard deviation.
    pooling
        How tokens become features.
    model_kwargs
        Arguments of the architecture.
    note
        What else to know.
    """

    name: str
    hub_id: str
    patch_px: int
    mpp: float
    dim: int
    licence: str
    gated: bool
    backbone: str = ""
    normalisation: tuple[Triple, Triple] = IMAGENET
    pooling: Pooling = Pooling.AUTO
    model_kwargs: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    @property
    def side_um(self) -> float:
        """Side of its field of view in microns."""
        return self.patch_px * self.mpp

    def encoder(self, *, weights: str) -> EncoderSettings:
        """Return the encoder settings, with the hub's weights unless ``weights`` names a copy.

        Raises
        ------
        ConfigError
            When neither timm nor open_clip builds the model.
        """
        if not self.backbone:
            raise ConfigError(
                explain(f"preset {self.name!r}", got="a model outside timm", remedy=self.note)
            )
        return EncoderSettings(
            backbone=self.backbone,
            weights=f"hf-hub:{self.hub_id}" if weights == "none" else weights,
            mean=self.normalisation[0],
            std=self.normalisation[1],
            pooling=self.pooling,
            model_kwargs=dict(self.model_kwargs),
            licence=self.licence,
        )


_SWIGLU: Final = {"mlp_layer": "SwiGLUPacked", "act_layer": "silu"}
_CONVERT: Final = "published as a torch checkpoint: convert it once and give the file as weights"
_FOREIGN: Final = "needs its authors' own loader: embed elsewhere or write an embedder plug-in"
_UNI2: Final[dict[str, Any]] = {
    "img_size": 224,
    "patch_size": 14,
    "depth": 24,
    "num_heads": 24,
    "init_values": 1e-5,
    "embed_dim": 1536,
    "mlp_ratio": 2.66667 * 2,
    "no_embed_class": True,
    "reg_tokens": 8,
    "dynamic_img_size": True,
    **_SWIGLU,
}

_TABLE: Final = (
    Preset(
        "resnet50",
        "timm/resnet50.a1_in1k",
        224,
        200 / 224,
        2048,
        "Apache-2.0",
        gated=False,
        backbone="resnet50",
    ),
    Preset(
        "dinov2-small",
        "timm/vit_small_patch14_dinov2.lvd142m",
        518,
        200 / 518,
        384,
        "Apache-2.0",
        gated=False,
        backbone="vit_small_patch14_dinov2",
    ),
    Preset(
        "h-optimus-0",
        "bioptimus/H-optimus-0",
        224,
        0.5,
        1536,
        "Apache-2.0",
        gated=True,
        backbone="vit_giant_patch14_reg4_dinov2",
        normalisation=OPTIMUS,
        model_kwargs={"img_size": 224, "init_values": 1e-5, "dynamic_img_size": False},
    ),
    Preset(
        "gigapath",
        "prov-gigapath/prov-gigapath",
        224,
        0.5,
        1536,
        "Apache-2.0 with conditions",
        gated=True,
        backbone="vit_giant_patch14_dinov2",
        model_kwargs={
            "img_size": 224,
            "patch_size": 16,
            "init_values": 1e-5,
            "mlp_ratio": 5.33334,
            "no_embed_class": False,
        },
        note=_CONVERT,
    ),
    Preset(
        "virchow2",
        "paige-ai/Virchow2",
        224,
        0.5,
        2560,
        "CC-BY-NC-ND-4.0",
        gated=True,
        backbone="vit_huge_patch14_224",
        pooling=Pooling.CLS_MEAN,
        model_kwargs={
            "img_size": 224,
            "init_values": 1e-5,
            "mlp_ratio": 5.3375,
            "reg_tokens": 4,
            "dynamic_img_size": True,
            **_SWIGLU,
        },
    ),
    Preset(
        "uni",
        "MahmoodLab/UNI",
        224,
        0.5,
        1024,
        "CC-BY-NC-ND-4.0",
        gated=True,
        backbone="vit_large_patch16_224",
        model_kwargs={"init_values": 1e-5, "dynamic_img_size": True},
        note=_CONVERT,
    ),
    Preset(
        "uni2-h",
        "MahmoodLab/UNI2-h",
        224,
        0.5,
        1536,
        "CC-BY-NC-ND-4.0",
        gated=True,
        backbone="vit_giant_patch14_224",
        model_kwargs=_UNI2,
        note=_CONVERT,
    ),
    Preset("midnight-12k", "kaiko-ai/midnight", 224, 0.5, 3072, "MIT", gated=False, note=_FOREIGN),
    Preset(
        "openmidnight",
        "SophontAI/OpenMidnight",
        224,
        0.5,
        1536,
        "Apache-2.0",
        gated=True,
        note=_FOREIGN,
    ),
    Preset(
        "gigapath-flash",
        "prov-gigapath/prov-gigapath-flash",
        224,
        0.5,
        384,
        "Apache-2.0",
        gated=True,
        note=_FOREIGN,
    ),
    Preset(
        "conch", "MahmoodLab/CONCH", 512, 0.5, 512, "CC-BY-NC-ND-4.0", gated=True, note=_FOREIGN
    ),
    Preset(
        "phikon-v2",
        "owkin/phikon-v2",
        224,
        0.5,
        1024,
        "Owkin non-commercial",
        gated=True,
        note=_FOREIGN,
    ),
    Preset(
        "omiclip", "WangGuangyuLab/Loki", 224, 0.5, 768, "see its card", gated=True, note=_FOREIGN
    ),
)

PRESETS: Final = {preset.name: preset for preset in _TABLE}
"""Every known model by name."""


def find_preset(name: str) -> Preset:
    """Return a known model.

    Raises
    ------
    ConfigError
        When there is none of this name.
    """
    if name not in PRESETS:
        raise ConfigError(explain("preset", got=repr(name), expected=", ".join(PRESETS)))
    return PRESETS[name]


def presets_table() -> list[dict[str, Any]]:
    """Return the table as plain rows, for listings."""
    rows = []
    for preset in _TABLE:
        row = dataclasses.asdict(preset)
        mean, std = row.pop("normalisation")
        row.pop("model_kwargs")
        rows.append({**row, "mean": mean, "std": std, "loadable": bool(preset.backbone)})
    return rows
