"""Files of any dialect, read record by record."""

from __future__ import annotations

import datetime
import decimal
import json
from typing import TYPE_CHECKING, Any, Literal

import fastavro
import msgspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from schemas.errors import BadInput
from streams.intake.mapping import FillDown, InputMapping
from streams.intake.readers import OtherShape, Record, opened
from streams.intake.recognise import recognised

if TYPE_CHECKING:
    from pathlib import Path

CSV = InputMapping(format="csv", fields={})


def read(path: Path, mapping: InputMapping = CSV, **changes: Any) -> list[Record]:  # noqa: ANN401 - a mapping's fields
    return list(opened(path, msgspec.structs.replace(mapping, **changes)).records)


def file(folder: Path, content: str | bytes, name: str = "export.csv") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


@pytest.mark.parametrize(
    "content",
    [
        b"sku,name\nA,Gr\xc3\xb6\xc3\x9fe\n",
        b"\xef\xbb\xbfsku,name\r\nA,Gr\xc3\xb6\xc3\x9fe\r\n",
        "sku,name\nA,Größe\n".encode("utf-16"),
        "sku;name\nA;Größe\n".encode(),
        "sku\tname\nA\tGröße".encode(),
        ' sku , name\n\nA,"Größe"\n\n'.encode(),
    ],
    ids=["plain", "BOM, CRLF", "UTF-16", "semicolons", "tabs", "blanks and empty lines"],
)
def test_one_table_in_any_dialect(tmp_path: Path, content: bytes) -> None:
    found = opened(file(tmp_path, content), CSV)
    assert found.columns == ("sku", "name")
    assert found.is_flat
    assert [record.values for record in found.records] == [{"sku": "A", "name": "Größe"}]
    assert found.notes == ()


def test_what_is_no_utf_8_is_read_as_windows_writes_it_and_told(tmp_path: Path) -> None:
    path = file(tmp_path, "sku,name\nA,Größe €\n".encode("cp1252"))
    found = opened(path, CSV)
    assert [record.values for record in found.records] == [{"sku": "A", "name": "Größe €"}]
    assert "is not UTF-8 and was read as Windows-1252" in found.notes[0]
    assert read(path, encoding="iso-8859-15")[0].values == {"sku": "A", "name": "Größe \x80"}
    with pytest.raises(BadInput, match="unknown encoding"):
        read(path, encoding="utf-9")


@pytest.mark.parametrize(("name", "content"), [("a.csv", "sku,n\nA,1\n"), ("a.json", '{"sku": "A"}')])
def test_a_file_is_looked_through_once_however_many_mappings_it_is_held_against(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, content: str
) -> None:
    path, looked = file(tmp_path, content, name), []
    for way in ("open", "read_bytes"):
        whole = getattr(type(path), way)

        def counted(self: Path, *how: Any, _whole: Any = whole, **more: Any) -> Any:  # noqa: ANN401
            looked.extend([self] if "rb" in how or not how + tuple(more) else [])
            return _whole(self, *how, **more)

        monkeypatch.setattr(type(path), way, counted)
    with pytest.raises(BadInput, match="is of no known shape"):
        recognised(path)
    assert len(looked) <= 2, "for a JSON file to be read it has to be opened"
    path.write_text(content.replace("A", "Bert"))
    assert read(path, format=name[2:], records="")[0].values["sku"] == "Bert"  # type: ignore[index]


def test_rows_are_named_by_their_lines_also_after_line_breaks_within_a_cell(tmp_path: Path) -> None:
    found = read(file(tmp_path, 'sku,note\nA,"two\nlines"\nB,\nC,x,y\nD,z\n'))
    assert [(record.place, record.values) for record in found] == [
        ("line 2", {"sku": "A", "note": "two\nlines"}),
        ("line 4", {"sku": "B", "note": None}),
        ("line 5", None),
        ("line 6", {"sku": "D", "note": "z"}),
    ]
    assert found[2].why == "has 3 columns, expected 2 as in the header"


def test_a_broken_quote_costs_its_own_row(tmp_path: Path) -> None:
    found = read(file(tmp_path, 'sku,n\nA,1\n"17" monitor,1\nB,2\n'))
    assert [record.values and record.values["sku"] for record in found] == ["A", None, "B"]
    assert found[1].why.startswith("is no CSV: ")


def test_only_the_first_row_of_a_group_need_hold_what_is_the_group_s(tmp_path: Path) -> None:
    rule = FillDown(by="order", columns=("currency", "cancelled"))
    content = "order,sku,currency,cancelled\n1,A,EUR,yes\n1,B,,\n2,C,USD,\n2,D,,\n1,E,,\n,F,,\n,G,GBP,\n"
    found = [record.values or {} for record in read(file(tmp_path, content), fill_down=rule)]
    assert [(each["currency"], each["cancelled"]) for each in found] == [
        ("EUR", "yes"), ("EUR", "yes"), ("USD", None), ("USD", None), (None, None), (None, None), ("GBP", None),
    ]  # fmt: skip


def test_texts_that_stand_for_nothing_are_nothing(tmp_path: Path) -> None:
    missing = ("", "NA", "-1")
    found = read(file(tmp_path, "a,b,c\nNA,-1,x\n"), missing=missing)
    assert found[0].values == {"a": None, "b": None, "c": "x"}
    path = file(tmp_path, '{"a": "NA", "items": [{"b": "-1", "n": -1}]}', "a.jsonl")
    assert read(path, format="jsonl", missing=missing)[0].values == {"a": None, "items": [{"b": None, "n": -1}]}


def test_headers_are_spelt_as_the_mapping_knows_them(tmp_path: Path) -> None:
    path = file(tmp_path, "SKU,Other\nA,x\n")
    assert opened(path, msgspec.structs.replace(CSV, known_by=("sku", "other one"))).columns == ("sku", "Other")


@pytest.mark.parametrize(
    ("content", "why"),
    [(b"sku,n,sku\n", "column sku is there twice"), (b"", "is empty"), (b"\n\n", "is empty")],
)
def test_a_table_without_a_usable_header_is_refused(tmp_path: Path, content: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why):
        read(file(tmp_path, content))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    for form in ("csv", "jsonl", "json", "parquet"):
        with pytest.raises(BadInput, match="does not exist"):
            read(tmp_path / "none", format=form)
    with pytest.raises(BadInput, match="cannot be read"):
        read(file(tmp_path, b"no parquet"), format="parquet")


def test_json_lines_are_read_one_by_one_and_a_bad_one_is_named(tmp_path: Path) -> None:
    found = read(file(tmp_path, b'\xef\xbb\xbf{"a": 1}\n\n{"a": \n[1]\n{"a": 2}\n', "a.jsonl"), format="jsonl")
    assert [(record.place, record.values) for record in found] == [
        ("line 1", {"a": 1}), ("line 3", None), ("line 4", None), ("line 5", {"a": 2}),
    ]  # fmt: skip
    assert [record.why.split(":")[0] for record in found if record.values is None] == [
        "is no JSON",
        "is no JSON object",
    ]


@pytest.mark.parametrize("document", [{"orders": [{"id": 1}, {"id": 2}]}, [{"id": 1}, {"id": 2}]])
def test_a_document_holds_its_records_where_the_mapping_says_or_is_a_list_of_them(
    tmp_path: Path, document: object
) -> None:
    path = file(tmp_path, json.dumps(document), "a.json")
    found = read(path, format="json", records="orders")
    assert [(record.place, record.values) for record in found] == [("record 1", {"id": 1}), ("record 2", {"id": 2})]


def test_a_document_may_be_one_record_itself(tmp_path: Path) -> None:
    one = {"id": 1, "items": [{"sku": "A"}]}
    path = file(tmp_path, json.dumps(one), "a.json")
    assert read(path, format="json", records="items", known_by=("id", "items"))[0].values == one
    assert read(path, format="json")[0].values == one
    with pytest.raises(OtherShape, match="no records at 'orders'; it has id, items"):
        read(path, format="json", records="orders", known_by=("number",))
    with pytest.raises(BadInput, match=r'is no JSON document .* format = "jsonl"'):
        read(file(tmp_path, '{"a": 1}\n{"a": 2}\n', "b.json"), format="json")


def test_parquet_rows_are_records(tmp_path: Path) -> None:
    pq.write_table(pa.table({"sku": ["A", "NA"], "n": [1, None]}), tmp_path / "a.parquet")
    found = opened(tmp_path / "a.parquet", msgspec.structs.replace(CSV, format="parquet", missing=("NA",)))
    assert (found.columns, found.is_flat) == (("sku", "n"), True)
    assert list(found.records) == [Record("row 1", {"sku": "A", "n": 1}), Record("row 2", {"sku": None, "n": None})]


def test_avro_files_hold_what_messages_in_avro_do(tmp_path: Path) -> None:
    path = tmp_path / "orders.avro"
    schema = {
        "type": "record",
        "name": "Order",
        "fields": [
            {"name": "sku", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "note", "type": ["null", "string"]},
        ],
    }
    at = datetime.datetime(2026, 3, 1, 8, tzinfo=datetime.UTC)
    rows = [{"sku": f"A{n}", "at": at, "price": decimal.Decimal("2.50"), "note": "NA"} for n in range(3)]
    with path.open("wb") as out:
        fastavro.writer(out, schema, rows)
    found = opened(path, InputMapping(format="avro", fields={}, missing=("NA",)))
    assert found.columns == ("sku", "at", "price", "note")
    records = list(found.records)
    assert [record.place for record in records] == ["record 1", "record 2", "record 3"]
    assert records[1].values == {"sku": "A1", "at": "2026-03-01T08:00:00+00:00", "price": 2.5, "note": None}
    whole = path.read_bytes()
    for content in (b"Obj\x01", whole[:-9], b"no Avro at all"):
        path.write_bytes(content)
        with pytest.raises(BadInput, match=r"orders\.avro is no Avro file, or broken: "):
            read(path, InputMapping(format="avro", fields={}))


@pytest.mark.parametrize("kind", ["protobuf", "json_schema"])
def test_formats_of_messages_are_no_formats_of_files(tmp_path: Path, kind: Literal["protobuf", "json_schema"]) -> None:
    with pytest.raises(BadInput, match=rf"{kind} is a format of messages, which `skutrend ingest` reads"):
        read(file(tmp_path, "x"), InputMapping(format=kind, fields={}))
