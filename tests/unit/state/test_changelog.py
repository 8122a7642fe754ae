"""Rows on their way into the changelog: how many at a time, in which order, and to which topic."""

from __future__ import annotations

from typing import Any

import pytest

from schemas.errors import StateMismatch
from streams.state import changelog
from streams.state.changelog import Changelog
from streams.state.keys import META


class Producer:
    """Notes what it is given."""

    def __init__(self) -> None:
        self.parts: list[list[tuple[bytes, bytes | None]]] = []
        self.marked: list[tuple[str, bytes, bytes, int]] = []

    def put(self, topic: str, keys: list[bytes], values: list[bytes | None], partition: int) -> None:
        assert (topic, partition) == ("log", 2)
        assert not self.marked
        self.parts.append(list(zip(keys, values, strict=True)))

    def put_marked(self, topic: str, key: bytes, value: bytes, partition: int) -> None:
        self.marked.append((topic, key, value, partition))


def writing(producer: Any) -> Changelog:  # noqa: ANN401 - stands for an OutputProducer
    return Changelog(producer, "log", 2)


def test_rows_go_to_the_producer_so_many_at_a_time_and_the_meta_record_last(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changelog, "AT_ONCE", 3)
    producer = Producer()
    log = writing(producer)
    log.put(META, b"meta")
    for n in range(7):
        log.put(b"k%d" % n, b"v")
        assert [len(part) for part in producer.parts] == [3] * ((n + 1) // 3)
    log.finish([b"gone"])
    assert [len(part) for part in producer.parts] == [3, 3, 2]
    assert producer.parts[-1] == [(b"k6", b"v"), (b"gone", None)]
    assert producer.marked == [("log", META, b"meta", 2)]


@pytest.mark.parametrize(
    ("before", "now", "is_refused"),
    [("a", "a", False), ("a", "b", True), ("", "b", False), ("a", None, False), ("", None, False)],
)
def test_a_topic_that_was_made_again_is_refused_and_nothing_that_is_not_known_to_be(
    before: str, now: str | None, *, is_refused: bool
) -> None:
    log = writing(Producer())
    log.topic_id = before
    ids = {"other": "c"} | ({} if now is None else {"log": now})
    if not is_refused:
        log.check_topic(ids)
        return
    with pytest.raises(StateMismatch, match="its id was a, now it is b"):
        log.check_topic(ids)
