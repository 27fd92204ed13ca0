"""`triptych config`: what the daemons are told, asked of the daemons' own programs."""
