"""The JSON Schema files agree with the types, are valid, and refuse what the decoders refuse."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator, ValidationError

from schemas import generate

ORDER = {
    "event_id": "536365-1",
    "order_id": "536365",
    "sku": "85123A",
    "quantity": 6,
    "unit_price": 2.55,
    "currency": "GBP",
    "event_time_ms": 1291191960000,
}


def test_the_schema_files_in_the_package_are_up_to_date() -> None:
    assert generate.main(["--check"]) == 0


@pytest.mark.parametrize("topic", sorted(generate.MESSAGES))
def test_schemas_are_valid_and_describe_their_message(topic: str) -> None:
    schema = json.loads((generate.DIRECTORY / f"{topic}.schema.json").read_bytes())
    Draft202012Validator.check_schema(schema)
    assert topic in schema["title"]
    assert all(definition["description"] for definition in schema["$defs"].values())


def test_check_names_missing_stale_and_stray_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert generate.main([], directory=tmp_path) == 0
    assert generate.main(["--check"], directory=tmp_path) == 0
    (tmp_path / "orders.schema.json").unlink()
    (tmp_path / "clicks.schema.json").write_text("{}")
    (tmp_path / "baskets.schema.json").write_text("{}")
    assert generate.main(["--check"], directory=tmp_path) == 1
    assert "out of date: baskets.schema.json, clicks.schema.json, orders.schema.json;" in capsys.readouterr().err
    assert generate.main([], directory=tmp_path) == 0
    assert generate.differences(tmp_path) == []
    assert not (tmp_path / "baskets.schema.json").exists()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("sku", ""),
        ("sku", " \t"),
        ("sku", "a\nb"),
        ("sku", "a\x7f"),
        ("sku", "a\u202eb"),
        ("sku", None),
        ("unit_price", -1),
        ("quantity", 1e19),
        ("currency", None),
        ("event_time_ms", 1.5),
    ],
)
def test_the_schema_of_orders_refuses_what_the_decoder_refuses(field: str, value: object) -> None:
    validator = Draft202012Validator(generate.schema_of("orders"))
    validator.validate({**ORDER, "loyalty": 3})
    with pytest.raises(ValidationError):
        validator.validate({**ORDER, field: value})
