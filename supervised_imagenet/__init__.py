"""Networks learning tasks: datasets, tasks, networks and checkpoints."""
