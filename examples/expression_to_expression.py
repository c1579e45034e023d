"""Expression to expression: measured spots with the profile of the spots of another section.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/expression_to_expression.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

from stretrieve.query.search import ReferenceSearch
from stretrieve.simulation import demo_data
from stretrieve.spots import SheetRow, log_cp10k, read_section


def main(folder: Path) -> None:
    # %% a measured section of an unseen donor
    search = ReferenceSearch(folder / "ref")
    data = demo_data(folder / "data")
    outs = data.query_positions.parents[1]
    section = read_section(SheetRow("donor3_a", outs, patient=data.query_patient))

    # %% its spots against the expression embeddings of the reference, in batches if you like
    query = search.section(section)
    hits = search.search(query, target="expression", top_k=20)
    print(hits.direction)
    print(
        hits.to_frame()[["query", "rank", "score", "spot_uid", "patient"]]
        .head(5)
        .to_string(index=False)
    )

    # %% do neighbours share genes? correlation of each spot with the mean of its neighbours
    found = hits.to_anndata(genes=section.gene_names)
    table = hits.to_frame().assign(row=found.uns["stretrieve"]["hits"]["spot"].to_numpy())
    own = log_cp10k(section.counts).toarray()
    means = np.stack([
        np.nanmean(found[rows].X, axis=0) for _, rows in table.groupby("query", sort=False)["row"]
    ])  # fmt: skip
    centred = own - own.mean(axis=0), means - means.mean(axis=0)
    r = [np.corrcoef(a, b)[0, 1] for a, b in zip(*centred, strict=True)]
    print(f"median correlation with the neighbours' mean, over spots: {np.median(r):.2f}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
