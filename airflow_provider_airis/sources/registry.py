"""The engine for registries: systems that show what is there now, and have no feed of what has changed.

A sync lists what is there, compares it with what is known, and delivers the difference as events. What is known is
kept in the hub's checkpoints: a few documents, each with the entries of some of the keys, and an index that sums them
up, so that a sync without a change reads the index alone. The rules that keep it right:

- Events are delivered before the state is committed. A sync that dies in between is repeated, so an event's key is made
  of the change itself (:func:`event_key`), never of the time at which it was found.
- Documents are written before what the index says of them. They are the truth; an index that is older costs the next
  sync a few reads, and no event.
- Nothing is called deleted because a listing does not show it: pages shift while they are read.
  :func:`check_deletion_threshold` first, then :func:`confirm` asks for each by its id.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from hashlib import blake2b
from itertools import islice
from typing import Any, NamedTuple, Protocol, TypeVar
from zlib import crc32

import msgspec

from airflow_provider_airis.errors import PermanentError

T = TypeVar("T")

KEY_CHARS = 256
NAME_CHARS = 120
# A document stays below this, so that an Airflow Variable can hold it where the hub has no checkpoints.
DOCUMENT_BYTES = 256 * 1024
MOST_DOCUMENTS = 1024
# Of so few a share says nothing.
FEW = 5
_FORMAT = 1
_SUM = 1 << 64


class Checkpoint(Protocol):
    """A named JSON document of the hub, with the version that :meth:`Checkpoints.put` compares."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def version(self) -> int: ...  # noqa: D102
    @property
    def value(self) -> Any: ...  # noqa: D102


class Checkpoints(Protocol):
    """Where the documents are, as ``AirisHook.checkpoints`` has them."""

    def get(self, name: str) -> Checkpoint | None:
        """The document; None if there is none."""

    def put(self, name: str, value: Any, *, version: int = 0) -> Checkpoint:
        """Write it, if its version is still the given one; 0 if it must not be there."""

    def delete(self, name: str) -> None:
        """Remove it."""


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What is known of one thing.

    :param mark: what a listing shows of it that may change, as a short text: another mark is a change.
    :param data: whatever else is to be remembered, as JSON.
    :param due: whether something of it has to be asked again, even if nothing changes.
    :param parts: how many things of a second kind it holds, for their deletion threshold.
    """

    mark: str
    data: Any = None
    due: bool = False
    parts: int = 0


class Difference(NamedTuple):
    """What a listing shows against what is known, each in the order of the keys."""

    new: list[str]
    changed: list[str]
    missing: list[str]


class _Document(msgspec.Struct):
    items: dict[str, Entry]
    format: int = _FORMAT


class _Summary(msgspec.Struct, frozen=True, array_like=True):
    """What the index has of a document: a sum over keys and marks, how many entries, how many due, how many parts."""

    sum: int = 0
    entries: int = 0
    due: int = 0
    parts: int = 0


class _Index(msgspec.Struct):
    documents: list[_Summary]
    cursor: dict[str, Any]
    format: int = _FORMAT


class RegistryState:
    """What a source knows of one registry: an entry a key, and a cursor of the source's own.

    Opening it reads one document, whatever the registry's size; others are read when something in them is asked for.
    Changes are staged by :meth:`put` and :meth:`drop`, and written by :meth:`commit`.

    :param checkpoints: the hub's.
    :param name: of the state, see :func:`state_name`. The index is ``<name>``, documents are ``<name>/<of>/<number>``.
    :raises PermanentError: what is there was written by a later release.
    """

    def __init__(self, checkpoints: Checkpoints, name: str) -> None:
        self.name = name
        self._checkpoints = checkpoints
        self._loaded: dict[int, dict[str, Entry]] = {}
        self._versions: dict[str, int] = {}
        self._dirty: set[int] = set()
        index = self._read(name, _Index)
        self.is_new = index is None
        self._index = index or _Index([_Summary()], {})
        self._of = len(self._index.documents)
        self.cursor: dict[str, Any] = dict(self._index.cursor)

    @property
    def entries(self) -> int:
        """How many entries there are."""
        return self._total("entries")

    @property
    def parts(self) -> int:
        """How many parts the entries hold."""
        return self._total("parts")

    @property
    def staged(self) -> bool:
        """Whether there is something to commit."""
        return bool(self._dirty)

    def get(self, key: str) -> Entry | None:
        """What is known of a key."""
        return self._document(self._number(key)).get(key)

    def put(self, key: str, entry: Entry) -> None:
        """Stage what is known of a key from now on."""
        number = self._number(key)
        items = self._document(number)
        if items.get(key) != entry:
            items[key] = entry
            self._dirty.add(number)

    def drop(self, key: str) -> None:
        """Stage that nothing is known of a key from now on."""
        number = self._number(key)
        if self._document(number).pop(key, None) is not None:
            self._dirty.add(number)

    def compare(self, marks: Mapping[str, str]) -> Difference:
        """What is different from a whole listing, key → mark; reads only documents in which something is."""
        sums = [0] * self._of
        for key, mark in marks.items():
            sums[self._number(key)] += _sum(key, mark)
        differ = {number for number, total in enumerate(sums) if total % _SUM != self._summary(number).sum}
        found = Difference([], [], [])
        for key in sorted(marks) if differ else ():
            if self._number(key) in differ:
                known = self.get(key)
                if known is None:
                    found.new.append(key)
                elif known.mark != marks[key]:
                    found.changed.append(key)
        found.missing.extend(sorted(key for number in differ for key in self._document(number) if key not in marks))
        return found

    def due(self) -> Iterator[tuple[str, Entry]]:
        """The entries of which something has to be asked again."""
        for number in range(self._of):
            if self._summary(number).due:
                yield from [(key, entry) for key, entry in self._document(number).items() if entry.due]

    def commit(self, cursor: Mapping[str, Any] | None = None) -> int:
        """Write what was staged; call it once the events have arrived. Returns how many documents were written.

        :param cursor: the cursor from now on; as it was unless given.
        :raises CheckpointConflictError: another sync has written meanwhile: sync again.
        """
        obsolete = self._grow() if any(self._too_large(number) for number in self._dirty) else []
        written = len(self._dirty)
        if self.is_new and written:
            # Names the documents, to be looked into whatever is listed: this commit may not come to its end.
            self._write(self.name, _Index([_Summary(-1)] * self._of, {}))
            written += 1
        for number in sorted(self._dirty):
            self._write(self._document_name(number), _Document(self._loaded[number]))
        self._dirty.clear()
        cursor = self.cursor if cursor is None else cursor
        index = _Index([self._summary(number) for number in range(self._of)], dict(cursor))
        if index != self._index or self.is_new:
            self._write(self.name, index)
            written += 1
        self._index, self.cursor, self.is_new = index, dict(index.cursor), False
        for name in obsolete:
            self._checkpoints.delete(name)
        return written

    def _number(self, key: str) -> int:
        return crc32(key.encode()) % self._of

    def _document_name(self, number: int) -> str:
        return f"{self.name}/{self._of}/{number}"

    def _document(self, number: int) -> dict[str, Entry]:
        if number not in self._loaded:
            found = self._read(self._document_name(number), _Document)
            self._loaded[number] = {} if found is None else found.items
        return self._loaded[number]

    def _summary(self, number: int) -> _Summary:
        """Of what is loaded, since the index may be older; else of the index."""
        if number not in self._loaded:
            return self._index.documents[number]
        items = self._loaded[number]
        return _Summary(
            sum(_sum(key, entry.mark) for key, entry in items.items()) % _SUM,
            len(items),
            sum(entry.due for entry in items.values()),
            sum(entry.parts for entry in items.values()),
        )

    def _total(self, what: str) -> int:
        return sum(getattr(self._summary(number), what) for number in range(self._of))

    def _too_large(self, number: int) -> bool:
        items = self._loaded[number]
        return len(items) > 1 and self._of < MOST_DOCUMENTS and len(msgspec.json.encode(items)) > DOCUMENT_BYTES

    def _grow(self) -> list[str]:
        """Spread the entries over more documents; returns the names of those that they were in."""
        obsolete = [self._document_name(number) for number in range(self._of)]
        entries = [entry for number in range(self._of) for entry in self._document(number).items()]
        while any(self._too_large(number) for number in range(self._of)):
            self._of *= 2
            self._loaded = {number: {} for number in range(self._of)}
            for key, entry in entries:
                self._loaded[self._number(key)][key] = entry
        self._dirty = set(range(self._of))
        return [name for name in obsolete if self._versions.get(name)]

    def _read(self, name: str, shape: type[T]) -> T | None:
        found = self._checkpoints.get(name)
        self._versions[name] = 0 if found is None else found.version
        if found is None:
            return None
        try:
            if found.value["format"] > _FORMAT:
                raise PermanentError(f"Checkpoint {name} was written by a later release of this provider: install that")
            return msgspec.convert(found.value, shape)
        except (KeyError, TypeError, msgspec.ValidationError) as error:
            raise PermanentError(
                f"Checkpoint {name} has another shape than this provider writes ({error}): delete it, "
                "and the next sync begins anew"
            ) from error

    def _write(self, name: str, document: _Document | _Index) -> None:
        if name not in self._versions:
            self._read(name, type(document))
        written = self._checkpoints.put(name, msgspec.to_builtins(document), version=self._versions[name])
        self._versions[name] = written.version


def state_name(system: str, registry: str) -> str:
    """The name of a registry's state: legible, of few characters, and another for every registry."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "-", registry)
    if plain != registry or len(plain) > NAME_CHARS:
        plain = f"{plain[:NAME_CHARS]}-{blake2b(registry.encode(), digest_size=6).hexdigest()}"
    return f"{system}/{plain}"


def mark(*parts: object) -> str:
    """A mark of whatever makes up a thing's state: eight bytes, as hexadecimal text."""
    return blake2b(msgspec.json.encode(parts), digest_size=8).hexdigest()


def event_key(event_type: str, *parts: object) -> str:
    """The key of an event: its parts as they are, or a digest of them where the hub has no room."""
    key = "/".join((event_type, *map(str, parts)))
    if len(key) <= KEY_CHARS:
        return key
    return f"{event_type}/{blake2b(key.encode(), digest_size=16).hexdigest()}"


def check_deletion_threshold(
    what: str,
    missing: int,
    known: int,
    *,
    max_missing: int,
    max_missing_share: float,
    examples: Iterable[str] = (),
    advice: str = "",
) -> None:
    """Accept that so many are missing.

    Both bounds are the most that may be missing at once; of the first :data:`FEW` no share is taken. All of several may
    never be missing, unless ``max_missing_share`` is 1.

    :param what: of what, and where: ``users of ldap_default``.
    :param known: how many were known, the missing ones among them.
    :param max_missing: a number, and ``max_missing_share`` a share of ``known``.
    :param examples: some of the missing ones, by name.
    :param advice: a sentence on what to check.
    :raises PermanentError: they are too many; nothing may be deleted.
    """
    if missing > max_missing:
        over = f"max_missing={max_missing}"
    elif missing > max(FEW, max_missing_share * known) or (missing == known > 1 and max_missing_share < 1):
        over = f"max_missing_share={max_missing_share}"
    else:
        return
    among = f", among them {', '.join(named)}" if (named := list(islice(examples, FEW))) else ""
    said = f"Refusing to delete: {missing:,} of {known:,} {what} are missing, more than {over}{among}. {advice}"
    raise PermanentError(said.rstrip())


def confirm(
    missing: Iterable[str], ask: Callable[[str], T | None], part: Callable[[str], AbstractContextManager[None]]
) -> tuple[list[str], dict[str, T]]:
    """Ask for each thing that a listing did not show by its id: which are gone, and what those are that are there.

    :param ask: returns the thing, None if it is gone.
    :param part: what a failure is recorded by, as the operator's ``part``. What cannot be asked for is in neither.
    """
    gone: list[str] = []
    there: dict[str, T] = {}
    for key in missing:
        with part(key):
            found = ask(key)
            if found is None:
                gone.append(key)
            else:
                there[key] = found
    return gone, there


def _sum(key: str, its_mark: str) -> int:
    return int.from_bytes(blake2b(f"{key}\0{its_mark}".encode(), digest_size=8).digest())
