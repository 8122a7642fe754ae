"""Property tests of features/."""
