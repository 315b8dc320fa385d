"""Tests of the whole system; a package, so that programs outside of pytest can use its fakes."""
