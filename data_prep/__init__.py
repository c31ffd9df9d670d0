"""Making caches: from the embedded template, and from files of the user."""
