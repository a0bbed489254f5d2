"""Preference pairs for Rerank-DPO: what was shown, its mirror, and the policy's own lists."""
