"""Unit tests of streams/partition/."""
