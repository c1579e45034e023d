import pytest

from stretrieve.cli._errors import run
from stretrieve.cli.app import app


@pytest.fixture
def cli(capsys):
    """Run the command line in this process; returns (exit code, stdout, stderr)."""

    def call(*arguments):
        code = run(lambda: app([str(a) for a in arguments], standalone_mode=False), debug=False)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
