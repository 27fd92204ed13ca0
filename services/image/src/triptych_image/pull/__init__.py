"""From a name to a stored image: one pipeline from the registry's bytes to unpacked, verified layers."""
