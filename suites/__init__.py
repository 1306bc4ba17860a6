"""What the scripts run, one module for each of scripts/; the benchmark and the tests have rooms of their own."""
