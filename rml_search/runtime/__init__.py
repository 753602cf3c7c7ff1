"""How the engine is started: as a container, as a Singularity image, or as a process of its own."""
