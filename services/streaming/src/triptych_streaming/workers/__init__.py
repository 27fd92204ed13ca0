"""What sessions do on the host: processes, terminals, monitors, sockets in a pod's network."""
