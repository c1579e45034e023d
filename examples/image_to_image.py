"""Image to image: measured spots that look like a spot, and a contact sheet to judge it by eye.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/image_to_image.py FOLDER
"""

import sys
from pathlib import Path

from stretrieve.query.search import ReferenceSearch
from stretrieve.report.contact_sheet import answer_strips, write_contact_sheet
from stretrieve.store import Equals


def main(folder: Path) -> None:
    # %% three stored spots as the question, with their pictures
    search = ReferenceSearch(folder / "ref")
    uids = search.pool.references[0].spots["spot_uid"][[10, 200, 400]]
    query = search.stored(uids, modality="image", thumbnails=True)

    # %% look-alikes among other patients: a spot's own patient is left out by default
    hits = search.search(query, target="image", top_k=6)
    print(hits.direction)
    print(
        hits.to_frame()[["query", "rank", "score", "spot_uid", "patient"]]
        .head(12)
        .to_string(index=False)
    )

    # %% the same within one section, the spots themselves left out
    within = search.search(
        query, target="image", top_k=3, where=Equals("section", "donor1_a"), exclude="spot"
    )
    print(within.to_frame()[["query", "rank", "score", "spot_uid"]].to_string(index=False))

    # %% pictures: the question in a frame, its answers beside it
    table = hits.to_frame(thumbnails=True)
    images = dict(zip(query.names, query.thumbnails, strict=True))
    sheet = folder / "look-alikes.png"
    strips = answer_strips(table, queries=images)
    write_contact_sheet(sheet, strips, title="look-alikes", overwrite=True)
    print(f"wrote {sheet.name}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
