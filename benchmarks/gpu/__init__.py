"""One command that tries, on a GPU, everything that this project promises there: ``python -m benchmarks.gpu``."""
