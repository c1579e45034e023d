"""Regenerate the command reference and the shell completions of this folder.

``python cli/generate.py`` writes them; with ``--check`` it only says which are out of date.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
SHELLS = ("bash", "fish", "zsh")
INTRO = """<!-- written by cli/generate.py; do not edit -->

`python cli COMMAND` runs the command line from a checkout; after an install it is
`stretrieve COMMAND`. `completions/` holds completion scripts for bash, fish and zsh (or run
`stretrieve --install-completion`).

Results go to stdout (a table, or one JSON object with `--json`), progress and messages to stderr.
Exit codes: 0 ok, 1 internal error, 2 usage, 3 bad input, 4 some slides failed, 5 reference or model
mismatch or checksum, 6 resources, 130 interrupted.

"""


def files() -> dict[Path, str]:
    """Return what the generated files shall hold."""
    import typer
    from typer.cli import get_docs_for_click
    from typer.completion import get_completion_script

    from stretrieve.cli.app import app

    command = typer.main.get_command(app)
    context = typer.Context(command, info_name="stretrieve")
    docs = get_docs_for_click(obj=command, ctx=context, name="stretrieve")
    wanted = {HERE / "README.md": INTRO + docs.rstrip() + "\n"}
    for shell in SHELLS:
        script = get_completion_script(
            prog_name="stretrieve", complete_var="_STRETRIEVE_COMPLETE", shell=shell
        )
        wanted[HERE / "completions" / f"stretrieve.{shell}"] = script.rstrip() + "\n"
    return wanted


def main(*, check: bool) -> int:
    """Write the files, or report the stale ones."""
    stale = [p for p, text in files().items() if not p.is_file() or p.read_text() != text]
    for path, text in files().items():
        if path in stale and not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
    for path in stale:
        sys.stdout.write(f"{'stale' if check else 'wrote'}: {path.relative_to(HERE.parent)}\n")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main(check="--check" in sys.argv[1:]))
