import pytest

from stretrieve import errors
from stretrieve.errors import ExitCode, explain


def leaves():
    found, queue = [], [errors.StretrieveError]
    while queue:
        cls = queue.pop()
        found.append(cls)
        queue.extend(cls.__subclasses__())
    return [cls for cls in found if cls.__module__ == "stretrieve.errors"]


def test_message_has_what_got_expected_remedy_in_one_line():
    text = explain("mpp of a.svs", got="nothing", expected="a number", remedy="pass\n--mpp")
    assert text == "mpp of a.svs: got nothing; expected a number; pass --mpp"
    assert explain("plain") == "plain"


@pytest.mark.parametrize("cls", leaves(), ids=lambda cls: cls.__name__)
def test_every_error_has_an_exit_code_and_only_the_root_is_internal(cls):
    internal = cls.exit_code is ExitCode.INTERNAL
    assert internal == (cls is errors.StretrieveError)


@pytest.mark.parametrize(
    ("cls", "builtin", "code"),
    [
        (errors.InputNotFoundError, FileNotFoundError, 3),
        (errors.OutputExistsError, FileExistsError, 3),
        (errors.ConfigError, ValueError, 2),
        (errors.ManifestError, ValueError, 5),
        (errors.ResourceError, RuntimeError, 6),
        (errors.PartialFailureError, RuntimeError, 4),
    ],
)
def test_leaf_is_also_the_builtin_a_caller_expects(cls, builtin, code):
    assert issubclass(cls, builtin)
    assert cls.exit_code == code


def test_missing_dependency_names_the_extra():
    error = errors.MissingDependencyError("spatialdata", "spatial")
    assert "stretrieve[spatial]" in str(error)
    assert isinstance(error, ImportError)
