"""One file per question; each measures stoker beside its peers in one run and prints the ratios."""
