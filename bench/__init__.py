"""Measurements: programs here, `cases` of the ops and the models, and a `harness` that knows none of them by name."""
