"""Long jobs: stored, run, told about; nothing is lost when the server ends."""
