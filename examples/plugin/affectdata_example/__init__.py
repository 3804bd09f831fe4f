"""A source (`diary`) and an export (`lines`) for affectdata, found by the entry points in pyproject.toml."""
