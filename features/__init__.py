"""What is known about a SKU: pure numpy, no clock, no broker, no disk."""
