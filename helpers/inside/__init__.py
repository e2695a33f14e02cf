"""What runs inside a job's container. Nothing imports it: a job starts `helpers.inside.main`."""
