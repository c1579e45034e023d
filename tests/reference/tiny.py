"""A deterministic embedder without networks, and sections made of noise with structure."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image
from scipy import sparse

from stretrieve.embedders import EMBEDDERS, Embedder
from stretrieve.embedders.storage import read_embedder, write_embedder
from stretrieve.specs import PatchSpec
from stretrieve.spots import Section, SectionMeta
from stretrieve.units import MppSource, PixelSize

PITCH = 24
PATCH = 16
DIM = 12


class TinyEmbedder(Embedder):
    """Fixed random projections of mean colours and of log counts, hashed by gene name."""

    name = "tiny"

    def __init__(self, dim: int = DIM, seed: int = 0) -> None:
        self._dim, self._seed = dim, seed
        self._genes: tuple[str, ...] = ()

    @property
    def spec(self):
        return PatchSpec.single(PATCH, side_um=float(PATCH))

    @property
    def dim(self):
        return self._dim

    @property
    def gene_names(self):
        return self._genes

    def fit(self, sections, *, progress=None):
        self._genes = tuple(sorted({g for s in sections for g in s.section.gene_names}))

    def encode_patches(self, batch):
        pixels = batch.views[0].reshape(len(batch), -1, 3).astype(np.float64)
        return np.hstack([pixels.mean(axis=1), pixels.std(axis=1)]).astype(np.float32)

    def project_patches(self, features, xy_um):
        weights = np.random.default_rng(self._seed).normal(size=(features.shape[1], self._dim))
        return np.einsum("nf,fd->nd", features.astype(np.float64), weights).astype(np.float32)

    def embed_expression(self, counts, genes, xy_um):
        order = np.argsort(np.asarray(genes))
        values = np.log1p(counts.toarray()[:, order].astype(np.float64))
        seeds = [sum(map(ord, genes[i])) * 31 + len(genes[i]) for i in order]
        weights = np.stack([np.random.default_rng(s).normal(size=self._dim) for s in seeds])
        return np.einsum("ng,gd->nd", values, weights).astype(np.float32)

    def to_config(self):
        return {"dim": self._dim, "seed": self._seed}

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def save(self, folder):
        write_embedder(
            Path(folder),
            name=self.name,
            configuration=self.to_config(),
            fitted={"genes": list(self._genes)},
            arrays={"seed": np.array([self._seed])},
        )

    @classmethod
    def load(cls, folder, *, device="cpu"):
        stored = read_embedder(Path(folder), name=cls.name)
        made = cls(**stored.configuration)
        made._genes = tuple(stored.fitted["genes"])
        return made


if "tiny" not in EMBEDDERS:
    EMBEDDERS.register("tiny")(TinyEmbedder)


def make_section(
    folder: Path,
    name: str,
    *,
    patient: str = "P1",
    organ: str = "breast",
    n: int = 5,
    genes: list[str] | None = None,
    seed: int = 0,
) -> Section:
    """Write an image of ``n`` x ``n`` spots and return the section; 1 µm a pixel."""
    rng = np.random.default_rng(seed)
    genes = genes or [f"G{i:02d}" for i in range(30)]
    side = PITCH * (n + 1)
    pixels = rng.integers(0, 255, size=(n + 1, n + 1, 3)).repeat(PITCH, 0).repeat(PITCH, 1)
    folder.mkdir(parents=True, exist_ok=True)
    image = folder / f"{name}.png"
    Image.fromarray(
        np.clip(pixels + rng.normal(0, 8, (side, side, 3)), 0, 255).astype(np.uint8)
    ).save(image)
    array = np.array([(x, y) for y in range(1, n + 1) for x in range(1, n + 1)], dtype=float)
    counts = sparse.csr_matrix(rng.poisson(0.7, size=(n * n, len(genes))).astype(np.int32))
    counts.eliminate_zeros()
    table = pd.DataFrame(
        {"gene_id": [f"ENSG{g[1:]}" for g in genes], "gene_symbol": genes}, index=pd.Index(genes)
    )
    return Section(
        SectionMeta(name, patient, organ, "human", "visium"),
        counts,
        table,
        np.array([f"{int(x)}x{int(y)}" for x, y in array]),
        array * PITCH,
        array,
        PixelSize.square(1.0, MppSource.GIVEN),
        image,
    )
