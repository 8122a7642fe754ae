"""What is expected of a SKU: model, baselines, p-values, alerts. Pure but for reading the model file."""
