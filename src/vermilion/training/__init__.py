"""Training: one flat recipe per module, and the data, augmentation and optimiser pieces that they share."""
