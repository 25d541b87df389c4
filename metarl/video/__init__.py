"""Films of trials: episodes in sequence or side by side, walls of tasks, plots of return and belief."""
