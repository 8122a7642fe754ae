"""A mapping that one thread changes while others read it, such as the HTTP server that answers probes."""

from __future__ import annotations

import threading
from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import TypeVar

_K = TypeVar("_K")
_V = TypeVar("_V")


class SharedDict(MutableMapping[_K, _V]):
    """A dict whose iterators run over a copy of one moment, whatever other threads change meanwhile.

    Each key is changed by one thread only.

    >>> shared = SharedDict[str, int]()
    >>> shared["a"] = 1
    >>> for key in shared:
    ...     del shared[key]
    >>> shared
    SharedDict({})
    """

    def __init__(self) -> None:
        """Start empty."""
        self._lock = threading.Lock()
        self._held: dict[_K, _V] = {}

    def snapshot(self) -> dict[_K, _V]:
        """Copy it as it is now."""
        with self._lock:
            return self._held.copy()

    def __getitem__(self, key: _K) -> _V:
        """Give the value of a key; KeyError where there is none."""
        with self._lock:
            return self._held[key]

    def __setitem__(self, key: _K, value: _V) -> None:
        """Set the value of a key."""
        with self._lock:
            self._held[key] = value

    def __delitem__(self, key: _K) -> None:
        """Remove a key; KeyError where it is not there."""
        with self._lock:
            del self._held[key]

    def __len__(self) -> int:
        """Count the keys."""
        with self._lock:
            return len(self._held)

    def __iter__(self) -> Iterator[_K]:
        """Iterate over the keys of this moment."""
        return iter(self.snapshot())

    def keys(self) -> KeysView[_K]:
        """Give the keys of this moment."""
        return self.snapshot().keys()

    def values(self) -> ValuesView[_V]:
        """Give the values of this moment."""
        return self.snapshot().values()

    def items(self) -> ItemsView[_K, _V]:
        """Give keys and values of this moment."""
        return self.snapshot().items()

    def __repr__(self) -> str:
        """Show it as a dict."""
        return f"SharedDict({self.snapshot()!r})"
