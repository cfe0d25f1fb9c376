"""Years of faults in virtual time: the real engine against a provider, a shop and a network, all
derived from one seed.
"""
