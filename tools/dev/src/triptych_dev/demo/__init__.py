"""`./dev demo`: a pod's whole life through the three daemons, told step by step."""
