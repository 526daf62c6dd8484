"""What the live database holds, compared with what it should: rights, drift, and the protection level reached.

Imports model, ddl, errors and SQLAlchemy.
"""
