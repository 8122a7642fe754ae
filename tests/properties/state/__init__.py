"""Property tests of streams/state/."""
