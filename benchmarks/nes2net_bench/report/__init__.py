"""Documents of benchmarks on one page, as tables of the README, and beside older ones."""
