"""Views of a training in progress: in a terminal, in a notebook, in plain lines. Free of torch."""
