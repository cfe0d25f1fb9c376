"""Another tenant of the shop's platform, asked about an order that it took and that stands in
another database.
"""
