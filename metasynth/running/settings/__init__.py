"""Settings of experiments: how they are read from text, JSON and TOML, written, and described."""
