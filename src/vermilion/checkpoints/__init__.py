"""Names → files → verified weights; safe readers only."""
