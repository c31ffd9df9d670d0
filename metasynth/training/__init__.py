"""Settings, seeds, the loop, checkpoints and records: how one study is carried out and kept."""
