"""What people see and what machines read; the only place that knows about terminals."""
