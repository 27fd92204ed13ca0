"""`./dev pants`: the monorepo under Pants, with the release that this host can run."""
