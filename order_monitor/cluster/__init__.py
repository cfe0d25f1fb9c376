"""Which of several processes on one shop asks which accounts: a feature, by ``cluster.enabled``."""
