"""Unit tests of streams/commands/."""
