"""The published scoring tool, as the golden checker calls it."""

from vermilion.evaluation.normalisation import tokens
from vermilion.evaluation.recognition import align, count


def word_errors(reference, hypothesis):
    """Tokens of both texts, the number of errors and their rate in percent."""
    said, heard = tokens(reference), tokens(hypothesis)
    counts = count(align(said, heard))
    return said, heard, counts.errors, 100 * counts.rate
