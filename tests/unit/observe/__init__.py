"""Unit tests of streams/observe/."""
