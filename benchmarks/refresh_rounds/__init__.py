"""Parts of benchmarks/refreshes.py: a policy's traffic, the truth about it, and the report."""
