"""The tests of `sa_audit.proof`; none needs a database."""
