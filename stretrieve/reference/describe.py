"""What a version of a reference holds, in a few figures."""

from __future__ import annotations

from typing import Any

from stretrieve import keys
from stretrieve.reference.manifest import Manifest

_ENCODER_FACTS = ("architecture", "source", "revision", "licence")


def described(manifest: Manifest) -> dict[str, Any]:
    """Return contents, embedders and indexes of a version, as plain JSON data."""
    sections = manifest.sections
    encoder = manifest.embedder.get("encoder", {})
    return {
        "spots": manifest.n_spots,
        "sections": len(sections),
        "patients": len({section[keys.PATIENT] for section in sections}),
        "genes": int(manifest.genes["n"]),
        **{
            name: sorted({section[name] for section in sections} - {""})
            for name in (keys.ORGAN, keys.SPECIES, keys.PLATFORM)
        },
        "embedder": manifest.embedder["name"],
        "encoder": {name: encoder.get(name, "") for name in _ENCODER_FACTS if encoder},
        "further_embedders": {
            label: str(entry["name"]) for label, entry in manifest.embedders.items()
        },
        "dim": manifest.embedder["dim"],
        "patch": manifest.embedder["patch_spec"]["views"],
        "indexes": {
            modality: {
                "recipe": entry.recipe,
                "reason": entry.reason,
                "recall": round(entry.recall, 4),
                "recall_k": entry.recall_k,
                "queries_per_second": round(entry.queries_per_second, 1),
            }
            for modality, entry in manifest.indexes.items()
        },
        "created": manifest.created,
        "libraries": dict(manifest.libraries),
    }
