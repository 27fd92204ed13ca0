"""`triptych status`: the three daemons and what they are doing."""
