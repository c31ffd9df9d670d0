"""``python -m metasynth``."""

from metasynth.cli.main import main

if __name__ == "__main__":
    main(prog_name="metasynth")
