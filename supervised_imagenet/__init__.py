"""Networks learning tasks: datasets, tasks, networks, checkpoints and imprinting."""
