"""Features for the golden checker."""

from vermilion.audio import FeatureExtractor


def features(cmvn_path, samples):
    """int16 samples → log-mel features before and after normalisation."""
    extractor = FeatureExtractor.from_cmvn(cmvn_path)
    return extractor.log_mel(samples), extractor(samples)
