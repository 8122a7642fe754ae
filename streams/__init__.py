"""What moves: Faust agents, transport, state on disk, outputs, commands. The only package that reads a clock."""
