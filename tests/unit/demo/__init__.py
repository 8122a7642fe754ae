"""Unit tests of streams/demo/."""
