"""Unit tests of inference/."""
