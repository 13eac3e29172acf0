"""Every night the reference models are examined with fresh seeds, and what the nights saw is added up.

`python -m suites.nightly` is the one command. `accumulate` and `sums` are the statistics, `state` the file and its
lock, `fingerprint` says which nights speak of the same code, `night` examines, `throughput` measures speed, `site`
publishes; `power` tells how many nights a small bias takes, and how often correct models are accused.
"""
