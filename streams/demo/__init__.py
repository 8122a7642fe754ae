"""The `demo` command and the sample of real sales that it replays."""
