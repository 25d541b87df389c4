"""Videos of trials: episodes in sequence or side by side, walls of tasks, plots of returns and read-outs."""
