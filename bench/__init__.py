"""Benchmarks: each module measures one thing with `measure(smoke)`; `python -m bench` runs them all."""
