"""The benchmark suite: `python -m bench`, results in bench/results.md."""
