"""Files to copy into the repository of a model's author: see README.md. Tried in tests/suites/test_pr_gate.py."""
