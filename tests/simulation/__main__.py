"""`python -m tests.simulation --seed N` shows one run step by step, `--seeds K` runs many until one fails."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.simulation.runs import STEPS, SeedError, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="run this one, and print every step")
    parser.add_argument("--seeds", type=int, default=1_000, help="run so many, and stop at the first that fails")
    parser.add_argument("--start", type=int, default=0, help="the first of them")
    parser.add_argument("--steps", type=int, default=STEPS, help="steps of a run before its end")
    asked = parser.parse_args()
    try:
        if asked.seed is not None:
            numbered = iter(range(1 << 62))
            run(asked.seed, steps=asked.steps, say=lambda what: print(f"{next(numbered):5} {what}"))
            print(f"seed {asked.seed} keeps all promises")
        else:
            _many(range(asked.start, asked.start + asked.seeds), asked.steps)
    except SeedError as failed:
        print(failed if asked.steps == STEPS else f"{failed} --steps {asked.steps}", file=sys.stderr)
        return 1
    return 0


def _many(seeds: range, steps: int) -> None:
    tally: Counter[str] = Counter()
    started_s = time.perf_counter()
    for done, seed in enumerate(seeds, 1):
        tally += run(seed, steps=steps)
        if done % 100 == 0 or done == len(seeds):
            passed_s = time.perf_counter() - started_s
            print(f"{done:,} of {len(seeds):,} seeds keep all promises, {passed_s:.0f} s", flush=True)
    for what, times in sorted(tally.items()):
        print(f"{times:10,} {what}")


if __name__ == "__main__":
    sys.exit(main())
