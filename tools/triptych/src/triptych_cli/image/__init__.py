"""`triptych image`: what the node holds, and how it gets there."""
