"""Metrics of which each has a sample."""

from __future__ import annotations

from streams.observe.metrics import Metrics


def every_metric() -> Metrics:
    """Metrics with a sample of each."""
    full = Metrics()
    full.set_build(provider="CPU")
    for metric in vars(full).values():
        names = getattr(metric, "_labelnames", None)
        if names is not None:
            sample = metric.labels(*["x"] * len(names)) if names else metric
            (sample.observe if hasattr(sample, "observe") else sample.inc)(1.0)
    return full
