"""Property tests of schemas/."""
