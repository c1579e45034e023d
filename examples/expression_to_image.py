"""Expression to image: what tissue with a measured profile looks like.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/expression_to_image.py FOLDER
"""

import sys
from pathlib import Path

from stretrieve.query.search import ReferenceSearch
from stretrieve.simulation import demo_data
from stretrieve.spots import SheetRow, read_section


def main(folder: Path) -> None:
    # %% a measured section of a donor that the reference does not hold; its genes are matched by
    # identity, and all of its spots are embedded together
    search = ReferenceSearch(folder / "ref")
    data = demo_data(folder / "data")
    outs = data.query_positions.parents[1]
    section = read_section(SheetRow("donor3_a", outs, patient=data.query_patient))
    query = search.section(section)
    for note in query.notes:
        print("note:", note)

    # %% compare their expression embeddings with the image embeddings of the measured spots
    hits = search.search(query, target="image", top_k=4)
    print(hits.direction)
    print(
        hits.to_frame()[["query", "rank", "score", "spot_uid", "patient"]]
        .head(8)
        .to_string(index=False)
    )

    # %% the patches that were found, as JPEG
    patch = hits.to_frame(thumbnails=True)["thumbnail"][0]
    (folder / "patch.jpg").write_bytes(patch)
    print(f"wrote patch.jpg, {len(patch)} bytes")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
