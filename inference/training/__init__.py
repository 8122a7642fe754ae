"""The offline half: arrays of a shop's history become a network, and a network becomes a bundle.

Needs the `train` extra (torch, onnx); nothing that serves imports this package.
"""
