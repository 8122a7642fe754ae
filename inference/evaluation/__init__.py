"""How good forecasts made at rolling origins turned out to be, beside those of references."""
