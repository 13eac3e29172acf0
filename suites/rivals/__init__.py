"""The planted bugs of the self-test under the rules that others use, so that the gain is seen side by side.

python -m suites.rivals --json results/rivals.json
"""
