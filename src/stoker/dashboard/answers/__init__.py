"""What the dashboard's API answers: structs made from runs and plain values, apart from HTTP."""
