"""``python -m stretrieve``."""

from stretrieve.cli.app import main

if __name__ == "__main__":
    main()
