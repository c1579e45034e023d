"""The command line: ``stretrieve COMMAND``."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from stretrieve.cli import (
    build_ref,
    demo,
    embedders,
    evaluate,
    genes,
    query,
    recipe,
    ref,
    retrieve,
    tissue,
)
from stretrieve.cli import check as check_command
from stretrieve.cli._errors import run
from stretrieve.cli._interrupt import certain_interrupts
from stretrieve.cli._memory import keep_freed_memory

app = typer.Typer(
    name="stretrieve",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("build-ref")(build_ref.build_ref)
app.command("query")(query.query)
app.command("evaluate")(evaluate.evaluate)
app.command("check")(check_command.check)
app.command("tissue")(tissue.tissue)
app.command("recipe")(recipe.recipe)
app.command("demo")(demo.demo)
app.command("embedders")(embedders.embedders)
app.add_typer(genes.app, name="genes")
app.add_typer(ref.app, name="ref")
app.add_typer(retrieve.app, name="retrieve")


def _version(value: bool) -> None:
    if value:
        from stretrieve import __version__

        sys.stdout.write(f"stretrieve {__version__}\n")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
    debug: Annotated[
        bool, typer.Option("--debug", help="Show log messages and, on an error, the traceback.")
    ] = False,
) -> None:
    """Predict spatial gene expression from H&E slides by retrieving measured reference spots."""
    del version
    import logging

    if context.invoked_subcommand is None:
        sys.stdout.write(context.get_help() + "\n")

    logging.basicConfig(
        level=logging.DEBUG if debug else logging.WARNING,
        format="%(levelname)s: %(message)s",
        stream=sys.stderr,
    )
    if debug:
        for noisy in ("PIL", "matplotlib", "numba", "filelock"):
            logging.getLogger(noisy).setLevel(logging.INFO)


def main() -> None:
    """Run the command line and leave the process with its exit code."""
    keep_freed_memory()
    with certain_interrupts():
        code = run(lambda: app(standalone_mode=False), debug="--debug" in sys.argv[1:])
    sys.exit(code)
