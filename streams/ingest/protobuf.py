"""Messages in Protobuf, decoded by a schema that is known only when they come: its JSON, with the names of the schema.

In that 64-bit integers are text. A registry gives schemas as the text of a `.proto` file, as Java's producers register
them, or as its serialized descriptor in base64, which Confluent's make of either when they are asked, and Apicurio does
not. Needs the extra `registry`.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from base64 import b64decode
from binascii import Error as NoBase64
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Final

from streams.ingest.envelopes import NotReadable

Decode = Callable[[bytes], Any]
_MOST_INDEXES: Final = 32  # depth of a message within its file
_MAIN: Final = "skutrend.main.proto"
_COMPILE_S: Final = 30.0


def decoder(text: str, references: Mapping[str, str]) -> Decode:
    """Make what decodes the content of a frame, which begins with the message's indexes in its file.

    text: of the file. references: by name, of those that it imports, each after what it imports itself. `NotReadable`
    where they are no schema.
    """
    from google.protobuf import descriptor_pool, json_format, message_factory  # noqa: PLC0415 - the extra

    pool = descriptor_pool.DescriptorPool()
    for each in _well_known():
        pool.Add(each)
    *imported, file = _files(text, references)
    for each in (*imported, file):
        pool.Add(each)
    described = pool.FindFileByName(file.name)
    order = [each.name for each in file.message_type]
    classes: dict[tuple[int, ...], type[Any]] = {}

    def decode(content: bytes) -> Any:  # noqa: ANN401 - whatever the schema says
        path, start = _message_path(content)
        if path not in classes:
            found = described.message_types_by_name[order[path[0]]]
            for index in path[1:]:
                found = found.nested_types[index]
            classes[path] = message_factory.GetMessageClass(found)
        message = classes[path].FromString(content[start:])
        return json_format.MessageToDict(
            message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, descriptor_pool=pool
        )

    return decode


def _files(text: str, references: Mapping[str, str]) -> list[Any]:
    """Give the descriptors of a file and those it imports, itself last."""
    given = {name: _deserialized(name, each) for name, each in references.items()}
    main = _deserialized("", text)
    serialized = [file for file in given.values() if file is not None]
    if main is not None and len(serialized) == len(given):
        return [*serialized, main]
    if main is not None:
        msg = "the schema is serialized, and what it refers to is text: register both in one way"
        raise NotReadable(msg)
    texts = {name: references[name] for name, file in given.items() if file is None}
    return _compiled(texts | {_MAIN: text}, serialized)


def _deserialized(name: str, text: str) -> Any:  # noqa: ANN401 - protobuf has no types
    """Decode a descriptor in base64; None where it is none. name: by which others refer to it, "" as itself says."""
    from google.protobuf import descriptor_pb2, message  # noqa: PLC0415 - the extra

    try:
        file = descriptor_pb2.FileDescriptorProto.FromString(b64decode(text, validate=True))
    except (NoBase64, ValueError, message.DecodeError):
        return None
    file.name = name or file.name or "message.proto"
    return file


def _compiled(texts: Mapping[str, str], serialized: list[Any]) -> list[Any]:
    """Let protoc compile the last of these files, by name; they may import each other and those serialized."""
    from google.protobuf import descriptor_pb2  # noqa: PLC0415 - the extra

    known = descriptor_pb2.FileDescriptorSet(file=[*_well_known(), *serialized])
    with tempfile.TemporaryDirectory(prefix="skutrend-") as name:
        folder = Path(name)
        for each, text in texts.items():
            if ".." in PurePosixPath(each).parts or PurePosixPath(each).is_absolute():
                msg = f"a reference of the schema has the name {each!r}, which is no path of imports"
                raise NotReadable(msg)
            (folder / each).parent.mkdir(parents=True, exist_ok=True)
            (folder / each).write_text(text)
        (folder / "known.bin").write_bytes(known.SerializeToString())
        *_, main = texts
        done = subprocess.run(  # noqa: S603 - our own interpreter
            [
                *(sys.executable, "-m", "grpc_tools.protoc", "--proto_path=.", "--descriptor_set_in=known.bin"),
                *("--include_imports", "--descriptor_set_out=made.bin", main),
            ],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=_COMPILE_S,
            check=False,
        )
        if done.returncode:
            why = " ".join(done.stderr.split())[:500] or f"protoc ended with {done.returncode}"
            msg = f"the schema cannot be compiled: {why}"
            raise NotReadable(msg)
        made = descriptor_pb2.FileDescriptorSet.FromString((folder / "made.bin").read_bytes())
    ours = {each.name for each in _well_known()}
    return [file for file in made.file if file.name not in ours]


@cache
def _well_known() -> list[Any]:
    """Give what schemas may import without a registry keeping it: google/protobuf/*.proto and some of google/type."""
    from google.protobuf import (  # noqa: PLC0415 - the extra
        any_pb2,
        descriptor_pb2,
        duration_pb2,
        empty_pb2,
        struct_pb2,
        timestamp_pb2,
        wrappers_pb2,
    )
    from google.type import date_pb2, datetime_pb2, decimal_pb2, money_pb2  # noqa: PLC0415

    known = (any_pb2, duration_pb2, empty_pb2, struct_pb2, timestamp_pb2, wrappers_pb2)
    all_known = (*known, descriptor_pb2, date_pb2, datetime_pb2, decimal_pb2, money_pb2)
    serialized = [each.DESCRIPTOR.serialized_pb for each in all_known]
    return [descriptor_pb2.FileDescriptorProto.FromString(each) for each in serialized]


def _message_path(content: bytes) -> tuple[tuple[int, ...], int]:
    """Read which message of its file a content is: indexes of nested messages, and where the message begins."""
    count, at = _varint(content, 0)
    if count == 0:
        return (0,), at
    if not 0 < count <= _MOST_INDEXES:
        msg = f"{count} message indexes"
        raise ValueError(msg)
    path = []
    for _ in range(count):
        index, at = _varint(content, at)
        path.append(index)
    if min(path) < 0:
        msg = f"message indexes {path}"
        raise ValueError(msg)
    return tuple(path), at


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """Read a zigzag varint: its value, and where it ends."""
    value = shift = 0
    while True:
        byte = content[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:  # noqa: PLR2004 - the bit that says that more follows
            return (value >> 1) ^ -(value & 1), at
