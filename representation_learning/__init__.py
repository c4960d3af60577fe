"""Networks that learn by other methods than supervision, their checkpoints stored as supervised ones are."""
