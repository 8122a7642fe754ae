"""Real workers on a real Kafka, and a dice that does them harm for as long as asked."""
