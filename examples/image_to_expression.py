"""Image to expression: what was measured in spots that fit the patches of a new slide.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/image_to_expression.py FOLDER
"""

import sys
from pathlib import Path

from stretrieve.query import SpotPositions
from stretrieve.query.search import ReferenceSearch
from stretrieve.simulation import demo_data
from stretrieve.spots import read_spot_positions


def main(folder: Path) -> None:
    # %% the reference, and a slide of a donor that it does not hold
    search = ReferenceSearch(folder / "ref")
    data = demo_data(folder / "data")

    # %% embed patches of the slide: here at given positions, else on a grid over the tissue
    names, xy = read_spot_positions(data.query_positions)
    query = search.patches(
        data.query_image, spots=SpotPositions(names[::40], xy[::40]), patient=data.query_patient
    )

    # %% compare their image embeddings with the expression embeddings of the measured spots
    hits = search.search(query, target="expression", top_k=5)
    print(hits.direction)
    print(
        hits.to_frame()[["query", "rank", "score", "spot_uid", "patient"]]
        .head(10)
        .to_string(index=False)
    )

    # %% the spots themselves, with measured expression
    found = hits.to_anndata()
    print(f"{found.n_obs} spots x {found.n_vars} genes; the most often found:")
    print(found.obs.nlargest(3, "n_queries")[["n_queries", "best_score", "section"]])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
