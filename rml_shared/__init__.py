"""A study that drivers on several machines share: its storage, its turns, its drivers, and their checkpoints."""
