"""What a study consists of: Optuna's samplers, pruners and distributions, its database, and the records of trials."""
