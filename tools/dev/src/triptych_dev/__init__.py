"""What ./dev runs: demo, tests, benchmarks, code generation, packaging."""
