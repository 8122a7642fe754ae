"""What tests share: a real Kafka node as a child process."""
