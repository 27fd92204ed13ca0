"""The benchmarks: what they measure, against whom, and how they tell it."""
