"""Other systems' records, as they are, made into events: what a mapping says, and who reads, maps and reports."""
