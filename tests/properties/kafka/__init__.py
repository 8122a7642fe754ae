"""Property tests of streams/kafka/."""
