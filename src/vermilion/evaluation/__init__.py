"""Evaluation: what a choice of precision or search costs in accuracy."""
