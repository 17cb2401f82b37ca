"""Thin commands, and the packages behind them: bench, demo, kubernetes, monitoring."""
