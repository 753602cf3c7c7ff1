"""An open engine for rmldnn configurations, on PyTorch.

It reads the JSON document that RocketML's rmldnn reads, trains, evaluates and infers, and prints the
same log. It knows nothing of searches, trials or containers.
"""

from rmldnn_contract import __version__ as __version__
