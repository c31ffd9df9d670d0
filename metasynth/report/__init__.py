"""Tables, figures and the page of a finished run."""
