"""Benchmarks against the peers. Run them with `scripts/bench`; they are not tests, because a clock decides."""
