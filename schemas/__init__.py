"""What is said on the wire: the messages of every topic, bytes to columns and back, and the errors."""
