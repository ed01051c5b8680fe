"""What a source knows of a registry: read sparingly, written in order, and never shrunk on a listing's word alone."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

from airflow_provider_airis.errors import AirisError, PermanentError
from airflow_provider_airis.sources.registry import (
    DOCUMENT_BYTES,
    Entry,
    RegistryState,
    check_deletion_threshold,
    confirm,
    event_key,
    mark,
    state_name,
)


class Document(NamedTuple):
    name: str
    version: int
    value: Any


class ConflictError(Exception):
    pass


class Documents:
    """Documents in memory, compared and set by their version; ``calls`` counts, ``fails`` says which write does."""

    def __init__(self) -> None:
        self.held: dict[str, Document] = {}
        self.calls: Counter[str] = Counter()
        self.fails: Callable[[str], bool] = lambda name: False

    def get(self, name: str) -> Document | None:
        self.calls["get"] += 1
        return self.held.get(name)

    def put(self, name: str, value: Any, *, version: int = 0) -> Document:
        self.calls["put"] += 1
        if self.fails(name):
            raise ConnectionError(name)
        if (self.held[name].version if name in self.held else 0) != version:
            raise ConflictError(name)
        self.held[name] = Document(name, version + 1, value)
        return self.held[name]

    def delete(self, name: str) -> None:
        self.calls["delete"] += 1
        del self.held[name]


def filled(documents: Documents, count: int, size: int = 0) -> dict[str, str]:
    state = RegistryState(documents, "s")
    marks = {f"key-{number}": mark(number) for number in range(count)}
    for key, its in marks.items():
        state.put(key, Entry(its, "x" * size, parts=2))
    state.commit({"newest": 1})
    documents.calls.clear()
    return marks


def test_a_registry_without_a_change_costs_one_read_and_no_write_however_large_it_is():
    documents = Documents()
    marks = filled(documents, 20_000, size=50)
    assert len(documents.held) > 5
    state = RegistryState(documents, "s")
    assert state.compare(marks) == ([], [], [])
    assert (state.entries, state.parts, state.cursor) == (20_000, 40_000, {"newest": 1})
    assert list(state.due()) == []
    assert state.commit() == 0
    assert documents.calls == {"get": 1}


def test_what_is_new_changed_and_missing_is_found_and_read_where_it_is():
    documents = Documents()
    marks = filled(documents, 20_000, size=50)
    there = len(documents.held) - 1
    state = RegistryState(documents, "s")
    del marks["key-7"]
    marks |= {"key-8": mark("other"), "key-new": mark("new")}
    assert state.compare(marks) == (["key-new"], ["key-8"], ["key-7"])
    assert documents.calls["get"] <= 1 + 3 < there
    state.drop("key-7")
    for key in ("key-8", "key-new"):
        state.put(key, Entry(marks[key]))
    assert state.commit() <= 3 + 1
    again = RegistryState(documents, "s")
    assert again.compare(marks) == ([], [], [])
    assert again.entries == 20_000


def test_no_document_is_larger_than_a_variable_may_be_and_none_is_left_behind():
    documents = Documents()
    filled(documents, 100)
    assert len(documents.held) == 2
    marks = filled(documents, 30_000, size=100)
    assert len({document.name.split("/")[1] for name, document in documents.held.items() if name != "s"}) == 1
    for document in documents.held.values():
        assert len(repr(document.value)) < 1.2 * DOCUMENT_BYTES
    assert RegistryState(documents, "s").compare(marks) == ([], [], [])


def test_one_entry_larger_than_a_document_is_kept():
    documents = Documents()
    filled(documents, 3, size=2 * DOCUMENT_BYTES)
    assert RegistryState(documents, "s").entries == 3


@pytest.mark.parametrize("size", [0, 100])
@pytest.mark.parametrize("at", ["index", "document"])
def test_a_commit_that_dies_half_way_leaves_what_was_or_what_is(at, size):
    """What was written is known, what was not is found again; a sync later all is well."""
    documents = Documents()
    state = RegistryState(documents, "s")
    marks = {f"key-{number}": mark(number) for number in range(10_000)}
    for key, its in marks.items():
        state.put(key, Entry(its, "x" * size))
    documents.fails = lambda name: documents.calls["put"] == 3 if at == "document" else name in documents.held
    with pytest.raises(ConnectionError):
        state.commit()
    documents.fails = lambda name: False
    state = RegistryState(documents, "s")
    assert not state.is_new
    assert RegistryState(documents, "s").compare({}).missing
    found = state.compare(marks)
    assert found.missing == found.changed == []
    assert 0 < len(found.new) < 10_000 if at == "document" else found.new == []
    for key in found.new:
        state.put(key, Entry(marks[key], "x" * size))
    state.commit()
    again = RegistryState(documents, "s")
    assert again.compare(marks) == ([], [], [])
    assert again.entries == 10_000


def test_documents_that_are_newer_than_the_index_count():
    documents = Documents()
    marks = filled(documents, 100)
    state = RegistryState(documents, "s")
    marks["key-1"] = mark("other")
    state.put("key-1", Entry(marks["key-1"]))
    documents.fails = lambda name: name == "s"
    with pytest.raises(ConnectionError):
        state.commit()
    documents.fails = lambda name: False
    state = RegistryState(documents, "s")
    assert state.compare(marks) == ([], [], [])
    state.commit()
    documents.calls.clear()
    assert RegistryState(documents, "s").compare(marks) == ([], [], [])
    assert documents.calls == {"get": 1}


def test_two_writers_do_not_overwrite_each_other():
    documents = Documents()
    filled(documents, 10)
    one, other = RegistryState(documents, "s"), RegistryState(documents, "s")
    one.put("key-1", Entry("one"))
    other.put("key-1", Entry("other"))
    one.commit()
    with pytest.raises(ConflictError):
        other.commit()
    assert RegistryState(documents, "s").get("key-1") == Entry("one")


def test_what_is_due_is_found_without_a_change():
    documents = Documents()
    filled(documents, 20_000, size=50)
    state = RegistryState(documents, "s")
    state.put("key-5", Entry(mark(5), due=True))
    state.commit()
    documents.calls.clear()
    state = RegistryState(documents, "s")
    assert [key for key, _ in state.due()] == ["key-5"]
    assert documents.calls == {"get": 2}
    state.put("key-5", Entry(mark(5)))
    state.commit()
    assert list(RegistryState(documents, "s").due()) == []


def test_a_state_of_a_later_release_is_not_touched():
    documents = Documents()
    documents.put("s", {"format": 99})
    with pytest.raises(PermanentError, match="later release"):
        RegistryState(documents, "s")
    documents.held["s"] = Document("s", 1, {"format": 1, "documents": "?"})
    with pytest.raises(PermanentError, match="begins anew"):
        RegistryState(documents, "s")


@pytest.mark.parametrize(
    ("missing", "known", "over"),
    [
        (412, 2_000, "max_missing=50"),
        (51, 100_000, "max_missing=50"),
        (50, 100_000, None),
        (50, 200, "max_missing_share=0.1"),
        (20, 200, None),
        (5, 12, None),
        (6, 12, "max_missing_share=0.1"),
        (2, 2, "max_missing_share=0.1"),
        (1, 1, None),
        (0, 0, None),
    ],
)
def test_too_many_missing_things_are_refused(missing, known, over):
    def check() -> None:
        check_deletion_threshold(
            "users", missing, known, max_missing=50, max_missing_share=0.1, examples=iter("abcdefgh"), advice="Look."
        )

    if over is None:
        check()
        return
    with pytest.raises(PermanentError) as refused:
        check()
    assert str(refused.value) == (
        f"Refusing to delete: {missing:,} of {known:,} users are missing, more than {over}, "
        "among them a, b, c, d, e. Look."
    )


def test_all_may_be_missing_if_that_is_said():
    check_deletion_threshold("users", 2_000, 2_000, max_missing=2_000, max_missing_share=1)


def test_only_what_is_asked_for_and_gone_is_gone():
    failed = []

    @contextmanager
    def part(name: str) -> Iterator[None]:
        try:
            yield
        except AirisError:
            failed.append(name)

    def ask(key: str) -> str | None:
        if key == "forbidden":
            raise PermanentError("403")
        return None if key == "gone" else key.upper()

    assert confirm(["gone", "forbidden", "hidden"], ask, part) == (["gone"], {"hidden": "HIDDEN"})
    assert failed == ["forbidden"]


def test_names_and_keys_are_short_and_tell_everything_apart():
    registries = ["host/path", "host-path", "a" * 500, "a" * 501, "größe", "mlflow.example.com"]
    names = [state_name("mlflow", registry) for registry in registries]
    assert len(set(names)) == len(names)
    assert max(map(len, names)) < 200
    assert names[-1] == "mlflow/mlflow.example.com"
    assert event_key("gone", "r", "m", 3) == "gone/r/m/3"
    long = event_key("gone", "x" * 300)
    assert len(long) < 64
    assert long != event_key("gone", "x" * 301)
    assert mark(1, "2") != mark("1", 2)
