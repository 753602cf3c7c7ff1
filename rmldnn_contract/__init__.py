"""What rmldnn reads and writes, written down once for the driver and the engine.

``config`` models the JSON document, ``training_log`` formats and parses the log lines,
``exit_status`` names the ways in which the engine ends. Nothing here imports torch or Optuna.
"""

#: Of the whole project: driver, contract and engine are one distribution.
__version__ = "0.1.0"
