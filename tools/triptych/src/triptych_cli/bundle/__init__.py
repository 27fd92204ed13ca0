"""`triptych support-bundle`: what a bug report needs, without secrets."""
