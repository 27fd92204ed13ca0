"""Unpacked layers as directories: overlayfs's marks, chains, sub paths, proofs, archives."""
