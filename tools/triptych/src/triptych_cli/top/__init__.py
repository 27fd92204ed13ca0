"""`triptych top`: the node, live."""
