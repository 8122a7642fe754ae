"""What settings are read with: addresses, names, security, rates, personal data."""
