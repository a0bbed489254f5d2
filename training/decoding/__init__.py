"""From Z to a list: OMTP (greedy or sampled), one at a time, and verified OMTP."""
