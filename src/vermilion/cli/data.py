"""`vermilion data`: one sub-command per file."""

from __future__ import annotations

from vermilion.cli.groups import group

SUBCOMMANDS = {
    "check": "Find what is wrong with a manifest and its recordings.",
    "clean": "Write a manifest without what is wrong with it.",
    "convert": "Write any manifest as JSON lines: WeNet, Kaldi, lhotse.",
    "split": "Divide into train, dev and test sets that share no speaker and no text.",
    "resample": "Write recordings as 16 kHz mono FLAC.",
    "pack": "Pack recordings into tar shards.",
    "cmvn": "Compute the mean and variance of features (cmvn.ark).",
}
"""what `vermilion data --help` says; equal to the first line of each docstring in `vermilion.cli.data_NAME`"""

SUMMARY = "Prepare recordings for training: check, split, resample, pack."

EXAMPLES = """Examples:
  vermilion data convert kaldi/train all.jsonl --measure
  vermilion data check all.jsonl --report bad.jsonl
  vermilion data clean all.jsonl clean.jsonl
  vermilion data split clean.jsonl --output-dir sets --dev 0.05 --test 0.05
  vermilion data pack sets/train.jsonl --output-dir shards

vermilion data COMMAND --help explains a command, with examples."""

data = group("data", SUMMARY, EXAMPLES, SUBCOMMANDS)
