"""Bytes of every shipped version are read by this build as they were meant."""

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from jsonschema import Draft202012Validator

from schemas import decoding, provenance
from schemas.clicks import CLICK_KINDS
from schemas.generate import MESSAGES, schema_of

GOLDEN = Path(__file__).parents[2] / "golden"
HEADERS = {
    "late-events": provenance.read_late_event_headers,
    "dead-letters": provenance.read_dead_letter_headers,
}
DECODERS = {
    "orders": decoding.decode_orders,
    "clicks": decoding.decode_clicks,
    "price-changes": decoding.decode_price_changes,
}


def lines_of(name: str) -> list[bytes]:
    return (GOLDEN / name).read_bytes().splitlines()


def examples(topic: str) -> list[tuple[bytes, dict[str, Any]]]:
    expected = [json.loads(line) for line in lines_of(f"{topic}.expected.jsonl")]
    return list(zip(lines_of(f"{topic}.jsonl"), expected, strict=True))


def test_every_message_has_at_least_three_examples_and_every_file_a_message() -> None:
    assert {path.name.split(".")[0] for path in GOLDEN.glob("*.jsonl")} == set(MESSAGES)
    assert all(len(examples(topic)) >= 3 for topic in MESSAGES)


@pytest.mark.parametrize("topic", sorted(MESSAGES.keys() - HEADERS.keys()))
def test_golden_values_decode_to_the_given_values(topic: str) -> None:
    message, _ = MESSAGES[topic]
    for value, expected in examples(topic):
        decoded = msgspec.json.decode(value, type=message)
        assert json.loads(json.dumps(msgspec.to_builtins(decoded))) == expected
        assert msgspec.json.decode(msgspec.json.encode(decoded), type=message) == decoded


@pytest.mark.parametrize("topic", sorted(HEADERS))
def test_golden_headers_read_as_the_given_values(topic: str) -> None:
    for value, expected in examples(topic):
        headers = [(name, text.encode()) for name, text in json.loads(value).items()]
        assert msgspec.to_builtins(HEADERS[topic](headers)) == expected


@pytest.mark.parametrize("topic", sorted(DECODERS))
def test_golden_inputs_become_the_given_columns(topic: str) -> None:
    columns, refusals = DECODERS[topic]([value for value, _ in examples(topic)])
    expected = [given for _, given in examples(topic)]
    assert refusals == []
    assert columns.row.tolist() == list(range(len(expected)))
    for name in set(type(columns).__slots__) - {"row", "kind"}:
        column = getattr(columns, name)
        assert (column.tolist() if isinstance(column, np.ndarray) else column) == [given[name] for given in expected]
    if topic == "clicks":
        assert [CLICK_KINDS[kind] for kind in columns.kind] == [given["kind"] for given in expected]


@pytest.mark.parametrize("topic", sorted(MESSAGES))
def test_golden_examples_fit_the_json_schema_of_their_message(topic: str) -> None:
    validator = Draft202012Validator(schema_of(topic))
    for value, expected in examples(topic):
        validator.validate(expected)
        if topic not in HEADERS:
            validator.validate(json.loads(value))
