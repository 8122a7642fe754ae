"""Property tests of inference/."""
