"""The store in an S3-compatible object store: a local server process that honours conditional writes."""

import contextlib
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from stretrieve.errors import ConfigError, InputError, OutputExistsError
from stretrieve.reference import (
    Reference,
    add_sections,
    build_reference,
    compact_reference,
    remove_sections,
    verify_reference,
)
from stretrieve.store import SpotStore, lance

from .conftest import SETTINGS
from .test_changes import answers

pytest.importorskip("moto", reason="the object-store tests need the extra 'test'")
SECRET = "do-not-print-me"


def _free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def options():
    port = _free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    endpoint = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 60
    while True:
        try:
            request = urllib.request.Request(f"{endpoint}/bucket", method="PUT")
            urllib.request.urlopen(request, timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
    yield {
        "aws_access_key_id": "key",
        "aws_secret_access_key": SECRET,
        "region": "us-east-1",
        "endpoint": endpoint,
        "allow_http": "true",
    }
    process.terminate()
    process.wait(30)


def test_a_reference_whose_tables_are_in_an_object_store(
    sections, new_section, built, options, tmp_path
):
    settings = replace(SETTINGS, store_uri="s3://bucket/first")
    reference = build_reference(
        sections, tmp_path / "REF", settings=settings, storage_options=options
    )
    assert answers(reference) == answers(Reference.open(built))
    assert not list((tmp_path / "REF").glob("lance*"))
    add_sections(tmp_path / "REF", [new_section], storage_options=options)
    removed = remove_sections(tmp_path / "REF", sections=["C-SECRET"], storage_options=options)
    assert removed.manifest.content_digest == reference.manifest.content_digest
    known = answers(reference)
    reference.close()
    compact_reference(tmp_path / "REF", storage_options=options)
    assert verify_reference(tmp_path / "REF", storage_options=options).ok
    compacted = Reference.open(tmp_path / "REF", storage_options=options)
    assert answers(compacted) == known
    assert compacted.manifest.store["uri"] == "s3://bucket/first-v000004"
    assert not SpotStore.is_occupied("s3://bucket/first", storage_options=options)
    text = "".join(p.read_text() for p in (tmp_path / "REF").rglob("*.json"))
    assert SECRET not in text


def test_tables_that_are_there_already_are_left_alone(sections, options, tmp_path):
    settings = replace(SETTINGS, store_uri="s3://bucket/second")
    build_reference(sections[:1], tmp_path / "A", settings=settings, storage_options=options)
    with pytest.raises(OutputExistsError, match="s3://bucket/second"):
        build_reference(sections[:1], tmp_path / "B", settings=settings, storage_options=options)
    assert [p.name for p in tmp_path.iterdir()] == ["A"]
    assert verify_reference(tmp_path / "A", storage_options=options).ok


def test_a_place_that_loses_commits_is_refused(sections, options, tmp_path, monkeypatch):
    monkeypatch.setattr(lance, "_PROBE_ROWS", 4)
    settings = replace(SETTINGS, store_uri="s3://bucket/third")
    with pytest.raises(InputError, match="If-None-Match"):
        build_reference(sections[:1], tmp_path / "A", settings=settings, storage_options=options)
    assert list(tmp_path.iterdir()) == []


def test_a_local_path_is_no_store_uri():
    with pytest.raises(ConfigError, match="s3://bucket/name"):
        replace(SETTINGS, store_uri="/somewhere")
