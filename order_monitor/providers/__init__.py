"""Who is asked: the seam to a provider, and the providers there are."""
