"""What the tests of all packages share: a pytest plugin with live daemons, and skips that name packages."""
