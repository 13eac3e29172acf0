"""The lines that most time is spent in, for pytest-benchmark; in a plain run they are tests of what is timed.

    python -m pytest suites/hot_paths --benchmark-enable --benchmark-save=before
    python -m pytest suites/hot_paths --benchmark-enable --benchmark-compare --benchmark-compare-fail=min:30%

Each time is that of the output that is then checked. The two sides run one after the other, so this wants a machine
with nothing else to do: beside a dozen busy processes, calls of 1 ms differed from themselves by up to 15 % in their
minimum, calls of 10 ms by factors. `harness bench SPEC --commits A B` takes turns, and says AMBIGUOUS where it cannot
tell.
"""
