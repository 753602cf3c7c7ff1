"""Ways to train one network, each started as a process of its own: ``python -m contestants.ours CASE``."""
