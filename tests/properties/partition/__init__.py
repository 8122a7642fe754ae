"""Property tests of streams/partition/."""
