"""Federated multi-task learning, simulated."""
