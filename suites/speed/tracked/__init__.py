"""What asv measures at every commit, and nothing else: asv imports all of this folder, as the package `tracked`.

It takes every public class that a module here has imported for one of benchmarks, if a method of it is called time_...
or track_..., so the other measurements of speed are a folder above. `suites/history.py` is the command.
"""
