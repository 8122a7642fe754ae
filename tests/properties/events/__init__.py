"""Property tests of streams/events/."""
