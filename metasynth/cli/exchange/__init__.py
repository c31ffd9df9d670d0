"""The commands that bring data and models from other programs and to them."""
