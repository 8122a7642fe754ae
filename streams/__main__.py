"""`python -m streams` is `skutrend`."""

from streams.cli import main

main()
