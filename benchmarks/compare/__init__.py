"""The same orders, provider and database for order-monitor and for other ways to do its job, side by side on one machine."""
