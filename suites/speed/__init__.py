"""How fast the reference models are: as ratios to a named peer in one run, and as they grow with n, D and K.

Here `paired` compares two callables, `cases` lists what is compared with which peer, `growth` measures seconds and peak
memory in child processes, and `ratios` is the command: python -m suites.speed.ratios --json results/speed.json
"""
