"""Every statement that reads orders."""
