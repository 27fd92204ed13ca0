"""`./dev package`: wheels, single-file executables and a Debian package, each tried after it is built."""
