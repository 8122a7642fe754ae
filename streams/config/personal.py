"""Personal data in dead letters and late events: who a record tells of is replaced by a pseudonym, or removed.

A JSON object keeps all bytes but those of such a value. A record that cannot be read as one keeps its bytes only where
they cannot tell of anybody; else its value is removed, and headers say how long it was: the original lies where the
header `source` says, among the inputs, under their access rights. So is one that is too large to be an event, or tells
of very many: taking it apart would hold the worker up.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

from schemas.errors import BadSetting
from schemas.personal import UNREADABLE, as_raw_fields, is_personal, may_tell_of_a_person, personal_values
from schemas.refusals import MAX_VALUE_BYTES

Headers = list[tuple[str, bytes | None]]
REMOVED_BYTES: Final = "removed_bytes"
REMOVED_HMAC: Final = "removed_hmac"
PSEUDONYM: Final = b"hm1:"
_PSEUDONYM_DIGITS: Final = 32
_LEAST_KEY_BYTES: Final = 16
_MOST_SOUGHT: Final = 64  # a record tells of one person; one that tells of many is not searched for each of them
_MOST_FOUND: Final = 1_024  # places in one record that tell of a person; each pseudonym costs some microseconds
_LEAST_SOUGHT_BYTES: Final = 6  # shorter ones would be found in what has nothing to do with them
_QUOTATION: Final = re.compile(rb"(?<!\w)'[^']*'(?!\w)|\"[^\"]*\"")


@dataclass(frozen=True, slots=True)
class Record:
    """A record that may be kept. ours: headers about what was removed. hidden: what stands for whom.

    is_removed: whether the value was; then nobody knows what a text about it quotes.
    """

    key: bytes | None
    value: bytes | None
    headers: Headers
    ours: list[tuple[str, bytes]] = field(default_factory=list)
    hidden: Mapping[bytes, bytes] = field(default_factory=dict)
    is_removed: bool = False

    def hide(self, text: bytes) -> bytes:
        """Replace those whom the record tells of also in a text about it."""
        if self.is_removed:
            return _QUOTATION.sub(b"(not shown)", text)
        for said, instead in self.hidden.items():
            if text == said:
                return instead
            if len(said) >= _LEAST_SOUGHT_BYTES:
                text = text.replace(said, instead)
        return text


@dataclass(frozen=True, slots=True)
class Masker:
    """What is done with personal data in letters. key: of the pseudonyms; empty: it is removed. is_off: all is kept."""

    key: bytes = field(default=b"", repr=False)
    is_off: bool = False

    def mask(
        self,
        key: bytes | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes | None]],
        *,
        names: Set[str] | None = None,
    ) -> Record:
        """Give the record as it may be kept.

        names: of a record of a bus: what fields are called there that tell of a person, besides the usual, by
        `letters_of`. Its key may be anybody's, and what cannot be read may hold anything.
        """
        if self.is_off:
            return Record(key, value, list(headers))
        bare = key if names is None or key is None else self._pseudonym(key) or None
        if not value:
            return self._with_headers(Record(bare, value, []), headers)
        sku = _sku_of(value) if len(value) <= MAX_VALUE_BYTES else None
        if sku is None and names is None and not may_tell_of_a_person(value):
            return self._with_headers(Record(key, value, []), headers)
        masked, hidden = (None, {}) if sku is None else self._masked(value, names or frozenset())
        if masked is None:
            return self._removed(bare, value)
        record = self._with_headers(Record(key, masked, [], hidden=hidden), headers)
        if key is None or sku == b'"%b"' % key:
            return record
        is_json = names is not None and key.lstrip()[:1] == b"{"
        return replace(record, key=(bare if is_json else record.hide(key)) or None)

    def _with_headers(self, record: Record, headers: Sequence[tuple[str, bytes | None]]) -> Record:
        return replace(record, headers=[(name, self._header(name, each, record)) for name, each in headers])

    def _removed(self, key: bytes | None, value: bytes) -> Record:
        ours = [(REMOVED_BYTES, b"%d" % len(value))]
        # a plain hash would give short records away: they can be guessed
        ours += [(REMOVED_HMAC, self._pseudonym(value))] if self.key else []
        return Record(key, None, [], ours, is_removed=True)

    def _masked(self, value: bytes, names: Set[str]) -> tuple[bytes | None, dict[bytes, bytes]]:
        """Give the value with pseudonyms, None where it tells of too many; and what stands for whom."""
        parts: list[bytes] = []
        hidden: dict[bytes, bytes] = {}
        at = 0
        for count, found in enumerate(personal_values(value, names)):
            if count >= _MOST_FOUND or len(found.parts) > _MOST_SOUGHT or len(hidden) > _MOST_SOUGHT:
                return None, {}
            pseudonym = self._pseudonym(found.text)
            parts += [value[at : found.start], b'"%b"' % pseudonym if pseudonym else b"null"]
            hidden |= {part: self._pseudonym(part) for part in found.parts if part}
            at = found.end
        return (None if len(hidden) > _MOST_SOUGHT else b"".join([*parts, value[at:]])), hidden

    def _header(self, name: str, value: bytes | None, record: Record) -> bytes | None:
        if value is None:
            return None
        return self._pseudonym(value) if is_personal(name) else record.hide(value)

    def _pseudonym(self, text: bytes) -> bytes:
        """Give the same pseudonym for the same text; one that is a pseudonym already stays."""
        if not self.key:
            return b""
        if text.startswith(PSEUDONYM) and len(text) == len(PSEUDONYM) + _PSEUDONYM_DIGITS:
            return text
        return PSEUDONYM + hmac.digest(self.key, text, "sha256").hex().encode()[:_PSEUDONYM_DIGITS]


def _sku_of(value: bytes) -> bytes | None:
    """Give the SKU of a JSON object as it stands there, b"" where it has none; None for what cannot be read as one."""
    try:
        value.decode()  # names deeper down are not decoded by what follows
        return bytes(as_raw_fields(value).get("sku", b""))
    except UNREADABLE:
        return None


def masker(personal: Literal["pseudonym", "remove", "keep"], key_file: str) -> Masker:
    """Make what the settings ask for; a key file that cannot be used is a `BadSetting`."""
    key = _key(Path(key_file)) if key_file else b""
    return Masker(key if personal == "pseudonym" else b"", is_off=personal == "keep")


def _key(path: Path) -> bytes:
    try:
        key = path.read_bytes().strip()
    except OSError as error:
        msg = f"cannot read the file {path} of SKUTREND_PERSONAL_KEY_FILE: {error.strerror}"
        raise BadSetting(msg) from error
    if len(key) < _LEAST_KEY_BYTES:
        msg = (
            f"the file {path} of SKUTREND_PERSONAL_KEY_FILE holds {len(key)} bytes; a key has at least "
            f"{_LEAST_KEY_BYTES}, such as `openssl rand -hex 32` gives"
        )
        raise BadSetting(msg)
    return key
