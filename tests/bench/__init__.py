"""Measurements, not tests: `python -m tests.bench`. Ratios measured side by side in one run; nothing is asserted."""
