"""What is expected of a SKU: model, plain forecasts, their blend, p-values, alerts. Pure but for reading models."""

import os

# From 1.29 on ONNX Runtime reports to its maker: it writes a device id into HOME and sends what it runs on. It reads
# this once, when it is imported, which only modules of this package do. `disable_telemetry_events` would come too late.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"
