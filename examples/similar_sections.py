"""A whole section to the sections that resemble it, and which of their spots belong together.

python examples/build_and_query.py FOLDER     # once: simulated tissue and its reference
python examples/similar_sections.py FOLDER
"""

import sys
from pathlib import Path

from stretrieve.query.search import MatchSettings, ReferenceSearch
from stretrieve.simulation import demo_data
from stretrieve.spots import SheetRow, read_section


def main(folder: Path) -> None:
    # %% every spot of a measured section; search.patches(slide) asks with an unmeasured one
    search = ReferenceSearch(folder / "ref")
    data = demo_data(folder / "data")
    outs = data.query_positions.parents[1]
    section = read_section(SheetRow("donor3_a", outs, patient=data.query_patient))
    query = search.section(section)

    # %% pair its spots with those of each section so that they are as similar as can be
    found = search.match(query, settings=MatchSettings(max_spots=150, seed=1))
    columns = ["rank", "similarity", "null_mean", "p_value", "null_patients", "section", "patient"]
    print(found.table[columns].to_string(index=False))
    print(found.pairs.nlargest(5, "similarity").to_string(index=False))
    for note in found.notes:
        print("note:", note)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
