"""The name that is this project's alone: `helpers` is a common one. Nothing else lives here."""
