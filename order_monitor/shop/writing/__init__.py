"""Every statement that writes orders, and the decisions on the locked rows."""
