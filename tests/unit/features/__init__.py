"""Unit tests of features/."""
