"""What everything else stands on: tasks, values that flow, random streams, configurations, names."""
