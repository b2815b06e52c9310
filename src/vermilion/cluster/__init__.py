"""Corpora: journals, workers and shards on one machine; the same pipeline on Ray where one is not enough."""
