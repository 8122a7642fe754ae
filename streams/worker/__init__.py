"""Many partitions: the consumer group, the clock, opening and giving up."""
