"""Property tests of streams/config/."""
