"""Build a reference and query a slide from Python, on simulated tissue.

    python examples/build_and_query.py FOLDER

writes everything into FOLDER. On your own tissue, start from your samplesheet instead of
``write_demo_data``.
"""

import sys
from pathlib import Path

from stretrieve import BuildSettings, QueryEngine, QuerySettings, Reference, build_reference
from stretrieve.simulation import write_demo_data


def main(folder: Path) -> None:
    data = write_demo_data(folder / "data")

    # once: two donors become a reference
    build_reference(data.sheet, folder / "ref", settings=BuildSettings(embedder="colour"))

    # for every new slide: open the reference, ask
    reference = Reference.open(folder / "ref")
    engine = QueryEngine(reference, settings=QuerySettings(top_k=30))
    result = engine.query(data.query_image, patient=data.query_patient)
    result.to_h5ad(folder / "prediction.h5ad", overwrite=True)

    gene = result.adata.var_names[0]
    print(f"{result.adata.n_obs} patches x {result.adata.n_vars} genes; {result.disclaimer}")
    print(f"the measured spots behind {gene} in the first patch:")
    print(result.explain(0, gene).head().to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
