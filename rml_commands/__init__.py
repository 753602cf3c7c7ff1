"""What the commands do that need a study, and the options that they take."""
