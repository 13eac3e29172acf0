"""What asv measures at every commit, and nothing else: asv imports all of this folder, as the package `tracked`.

It takes every public class that a module here has imported for one of benchmarks, if a method of it is called time_...
or track_..., so the other measurements of speed are a folder above. `suites/history.py` is the command.

The modules import each other by a dot: asv takes this folder from the checkout, and all else from the commit that it
measures, whose own `suites` may be older.
"""
