"""Observation to action, and how it learns. Only the learner's modules import torch."""
