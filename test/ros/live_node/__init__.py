"""A package, so that fixtures can be shared by the tests of this folder and end with them."""
