"""``python cli COMMAND``: the command line from a checkout, before an install."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from stretrieve.cli.app import main

if __name__ == "__main__":
    main()
