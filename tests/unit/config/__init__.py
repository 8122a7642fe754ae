"""Unit tests of streams/config/."""
