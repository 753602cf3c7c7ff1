"""An open engine for rmldnn configurations, on PyTorch.

It reads the JSON document that RocketML's rmldnn reads, trains, evaluates and infers, and prints the
same log. It knows nothing of searches, trials or containers.
"""

__version__ = "0.1.0"
