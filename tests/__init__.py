"""The tests of sa_audit; the packages in here mirror those of the library."""
