"""The real core over a simulated Kafka and a simulated clock, driven by a schedule that one integer decides."""
