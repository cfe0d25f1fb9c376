"""What may be set (`model`), how it is read and how mistakes are told (`loading`), and what a value may be (`types`).

May be touched from outside: `model` and `loading`. May call: shop (for the DSN's and the columns' names), core.
"""
