"""The producers' queue: what a worker puts between two looks at its room must fit, since nothing may block there."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from schemas.errors import BadSetting

if TYPE_CHECKING:
    from collections.abc import Mapping

# a step of closing puts the outputs of 16,384 SKUs, a batch up to 20,000 dead letters, into the half that is free
LEAST: Final[Mapping[str, int]] = {"queue.buffering.max.messages": 100_000, "queue.buffering.max.kbytes": 262_144}


def check(kafka: Mapping[str, str]) -> None:
    """Refuse properties that make the queue too small (`BadSetting`); 0 means without a limit."""
    for name, least in LEAST.items():
        text = kafka.get(name, "0").strip()
        if not text.isascii() or not text.isdigit():
            msg = f"the Kafka property {name} is {text!r}: expected a whole number"
            raise BadSetting(msg)
        if 0 < int(text) < least:
            msg = (
                f"the Kafka property {name} is {text}, too little for a worker's outputs: set at least {least}, or none"
            )
            raise BadSetting(msg)
