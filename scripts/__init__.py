"""Thin commands, and the packages behind them: bench of benchmark.py, demo of train_demo.py."""
