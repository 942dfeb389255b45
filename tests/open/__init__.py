"""Proof that the library is open: five methods of kinds it does not have, a page at most each."""
