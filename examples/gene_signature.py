"""A gene signature to spots, and to patches of a slide that nobody measured.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/gene_signature.py FOLDER
"""

import sys
from pathlib import Path

from stretrieve.query.search import ReferenceSearch
from stretrieve.simulation import demo_data


def main(folder: Path) -> None:
    # %% on your own tissue: {"KRT7": +1, "VWF": -1}; here two of the simulated genes
    search = ReferenceSearch(folder / "ref")
    data = demo_data(folder / "data")
    symbols = list(search.pool.genes["gene_symbol"])
    signature = {symbols[0]: +1.0, symbols[1]: -1.0}

    # %% every measured spot, beside 100 random sets of genes as abundant
    scores = search.signature(signature)
    columns = ["rank", "score", "null_mean", "p_value", "coverage", "spot_uid"]
    print(scores.to_frame(top_k=5)[columns].to_string(index=False))

    # %% patches of the unseen donor's slide, by the scores of the spots that each retrieves
    query = search.patches(data.query_image, patient=data.query_patient)
    hits = search.search(query, target="expression", top_k=50)
    print(scores.of_patches(hits).head(5).to_string(index=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
