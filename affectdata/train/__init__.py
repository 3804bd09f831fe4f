"""The reference trainer: the only place where torch is imported."""
