"""`python -m tests.bench [all|throughput|state|close|recovery|tombstones|ingest|overload] ...`: measures."""

from __future__ import annotations

import argparse


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    kinds = ["all", "throughput", "state", "close", "recovery", "tombstones", "ingest", "overload"]
    parser.add_argument("what", nargs="?", choices=kinds, default="all")
    parser.add_argument("--events", type=int, default=2_000_000, help="events of the service's throughput run")
    parser.add_argument("--plain-events", type=int, default=60_000, help="events of plain Faust's throughput run")
    parser.add_argument(
        "--skus", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="sizes of the state run"
    )
    parser.add_argument("--recovery-skus", type=int, default=300_000, help="SKUs of the recovery run")
    parser.add_argument("--tombstones", type=int, default=10_000_000, help="records without a value to recover from")
    parser.add_argument(
        "--backlogs", type=int, nargs="+", default=[250_000, 1_000_000, 2_000_000], help="events of the overload runs"
    )
    asked = parser.parse_args()
    if asked.what in {"all", "throughput"}:
        from tests.bench import throughput  # noqa: PLC0415  # each needs its own libraries

        throughput.main(asked.events, asked.plain_events)
    if asked.what in {"all", "close"}:
        from tests.bench import close  # noqa: PLC0415

        close.main()
    if asked.what in {"all", "recovery"}:
        from tests.bench import recovery  # noqa: PLC0415

        recovery.main(asked.recovery_skus)
    if asked.what in {"all", "tombstones"}:
        from tests.bench import tombstones  # noqa: PLC0415

        tombstones.main(asked.tombstones)
    if asked.what in {"all", "state"}:
        from tests.bench import state  # noqa: PLC0415

        state.main(asked.skus)
    if asked.what in {"all", "ingest"}:
        from tests.bench import ingest  # noqa: PLC0415

        ingest.main()
    if asked.what in {"all", "overload"}:
        from tests.bench import overload  # noqa: PLC0415

        overload.main(asked.backlogs)


if __name__ == "__main__":
    main()
