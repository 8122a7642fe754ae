"""`python -m tests.torture --minutes 10 --seed 1` runs workers on a real Kafka and harms them all the time."""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time

from tests.torture.driver import Plan, TortureError, torture


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0, help="of trouble; checks and the end come on top")
    parser.add_argument("--seed", type=int, help="decides what goes wrong and when; without it a new one is drawn")
    parser.add_argument("--workers", type=int, default=3, help="how many there should be; one more comes and goes")
    parser.add_argument("--guarantee", default="exactly_once", choices=["exactly_once", "at_least_once"])
    asked = parser.parse_args()
    seed = random.randrange(1 << 32) if asked.seed is None else asked.seed  # noqa: S311  # not secret
    plan = Plan(seed, asked.minutes, asked.workers, asked.guarantee)
    logging.basicConfig(level=logging.ERROR)
    print(plan, flush=True)
    started_s = time.monotonic()
    try:
        torture(plan, lambda what: print(f"{time.monotonic() - started_s:7.1f}  {what}", flush=True))
    except TortureError as failed:
        print(failed, file=sys.stderr)
        return 1
    print(f"seed {seed} keeps all promises")
    return 0


if __name__ == "__main__":
    sys.exit(main())
