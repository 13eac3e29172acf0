"""The lines that most time is spent in, for pytest-benchmark; in a plain run they are tests of what is timed.

    python -m pytest suites/hot_paths --benchmark-enable --benchmark-save=before
    python -m pytest suites/hot_paths --benchmark-enable --benchmark-compare --benchmark-compare-fail=min:30%

Each time is that of the output that is then checked. For a verdict on two commits, with its error, see `harness bench
SPEC --commits A B`.
"""
