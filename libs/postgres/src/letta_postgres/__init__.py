"""PostgreSQL: one pool, hot statements, lists in pages, migrations. Knows nothing of agents."""
