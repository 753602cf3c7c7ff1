"""The report of a search: what its page tells, with the plots that Optuna and plotly draw."""
